//! The supervisors' conformance with Erlang/OTP: a module for each group of OTP's `supervisor_SUITE`, in its order, with
//! its names. `docs/supervision-conformance.md` says what is kept, what is adapted and why; `table` keeps it true.

#![allow(clippy::unwrap_used)]

mod support;

mod sup_start;
mod sup_start_map;
mod sup_stop;

mod administration;

mod restart_one_for_all;
mod restart_one_for_one;
mod restart_rest_for_one;
mod restart_simple_one_for_one;

mod abnormal_termination;
mod normal_termination;
mod shutdown_termination;

mod tree;

mod significant;

mod counting;
mod hanging_restart_loop;
mod temporary;

mod code_change;
mod order_and_scale;

mod beyond_otp;

mod table;
