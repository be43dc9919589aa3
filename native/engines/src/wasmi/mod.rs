//! wasmi: `compile` checks a module and writes it as the interpreter takes it, `guest` runs it.

pub mod compile;
pub mod guest;
