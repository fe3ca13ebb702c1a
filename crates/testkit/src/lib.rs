//! For tests only: a node in a box, scripted clients, faults, the history checker.
