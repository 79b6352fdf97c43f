//! Streams between two nodes of one process.
