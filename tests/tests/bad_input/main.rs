//! Requests that make no sense. Each one is refused with the right code and a message that names what is
//! wrong, and leaves nothing behind.

mod asking;
mod containers;
mod existing;
mod images;
mod limits;
mod pods;
