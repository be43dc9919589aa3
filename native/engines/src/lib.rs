//! The engines of edge-agent that are written in Rust, for Python: `wasmer` compiles and runs
//! machine code where Cranelift has code for the processor, `wasmi` interprets everywhere.
//! `guest` is what both have in common, `python` the Python module.

// Some of it only `python` uses, which is not part of the tests: they link no interpreter.
#![cfg_attr(test, allow(dead_code))]

mod guest;
#[cfg(has_wasmer)]
mod wasmer;
mod wasmi;

#[cfg(not(test))]
mod python;
#[cfg(not(test))]
mod reentrancy;

#[cfg(test)]
mod tests;
