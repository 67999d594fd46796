//! Reads a formula file.
