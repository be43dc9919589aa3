//! What edge-agent needs of the Wasmer engine: `compile` makes artifacts, `guest` runs them,
//! `python` is the same as a Python module.

// Some of it only `python` uses, which is not part of the tests: they link no interpreter.
#![cfg_attr(test, allow(dead_code))]

mod charges;
mod compile;
mod guest;
mod image;
mod limits;
mod meter;

#[cfg(not(test))]
mod lend;
#[cfg(not(test))]
mod python;

#[cfg(test)]
mod tests;
