//! Wasmer: `compile` makes artifacts, which are ELF images, `guest` runs them.

mod charges;
pub mod compile;
pub mod guest;
mod image;
mod limits;
mod link;
mod meter;
mod objects;
pub mod target;

#[cfg(test)]
mod tests;
