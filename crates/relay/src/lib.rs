//! The decisions of the media path, sans-IO: admission, limits, egress queues and what they drop.
