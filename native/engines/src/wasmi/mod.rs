//! wasmi: `compile` checks a module and writes it as the interpreter takes it, `guest` runs it.

mod body;
pub mod compile;
mod grow;
pub mod guest;

#[cfg(test)]
mod tests;
