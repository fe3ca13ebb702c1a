//! OTP supervisors on ractor: the decisions are pure, one file touches ractor.
