//! The router itself: the actors, the tree, configuration, administration. Binary: roomcast.
