//! Reads an action file.
