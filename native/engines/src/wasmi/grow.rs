//! The functions that grow tables instead of wasmi's own instruction.
//!
//! wasmi 2.0.0 cannot be resumed where `table.grow` runs out of fuel: unlike all other instructions
//! it does not note its place, and the function would begin again elsewhere with register values
//! of before. So each such instruction becomes a call of a function that is added for its table and
//! grows that in steps which cost no fuel.

use wasmparser::{RefType, TableType};

use super::compile::push;
use crate::guest::MAX_TABLE_ELEMENTS;

/// Growing costs a unit of fuel for 64 bytes, rounded down, at 8 bytes at most for each element.
const STEP: u8 = 7;

/// The functions to add to a module, one for each of its tables.
pub struct Growers {
    /// The number of the first.
    pub function: u32,
    /// The number of the first one's type.
    kind: u32,
    tables: Vec<TableType>,
}

impl Growers {
    /// For a module with so many types and functions. All of `tables` are numbered by 32 bits.
    pub fn new(types: u32, functions: u32, tables: Vec<TableType>) -> Self {
        Self { function: functions, kind: types, tables }
    }

    pub fn count(&self) -> u32 {
        self.tables.len() as u32
    }

    /// Their types, as in the section of types: of (reference, i32) -> i32.
    pub fn types(&self) -> Vec<u8> {
        let entry = |table: &TableType| {
            let element = if table.element_type == RefType::EXTERNREF { 0x6f } else { 0x70 };
            [0x60, 2, element, 0x7f, 1, 0x7f]
        };
        self.tables.iter().flat_map(entry).collect()
    }

    /// Their entries in the section of functions.
    pub fn functions(&self) -> Vec<u8> {
        let mut entries = Vec::new();
        (0..self.count()).for_each(|table| push(&mut entries, self.kind + table));
        entries
    }

    /// Their code, as in the section of code.
    pub fn code(&self) -> Vec<u8> {
        let mut code = Vec::new();
        for (number, table) in (0..).zip(&self.tables) {
            let body = grower(number, table);
            push(&mut code, body.len() as u32);
            code.extend(body);
        }
        code
    }
}

// Core specification, 5.3 and 5.4.
const I32: u8 = 0x7f;
const NOTHING: u8 = 0x40;

/// A function's locals and code: `table.grow`, in steps.
fn grower(number: u32, table: &TableType) -> Vec<u8> {
    const VALUE: u8 = 0; // parameters
    const LEFT: u8 = 1; // to grow by, at first all of it
    const BEFORE: u8 = 2; // locals
    const BY: u8 = 3;
    let most = table.maximum.unwrap_or(u64::MAX).min(u64::from(MAX_TABLE_ELEMENTS));
    let instruction = |code: u8| {
        let mut bytes = vec![0xfc, code];
        push(&mut bytes, number);
        bytes
    };
    let (grow, size) = (instruction(0x0f), instruction(0x10));
    [
        &[1, 2, I32],
        // Beyond its limit: -1, and nothing has changed.
        size.as_slice(),
        &[0x22, BEFORE, 0x1a, 0x20, LEFT], // local.tee, drop, local.get
        &constant(most as i32),
        &[0x20, BEFORE, 0x6b, 0x4b, 0x04, NOTHING, 0x41, 0x7f, 0x0f, 0x0b], // - gt_u if return
        &[0x03, NOTHING, 0x20, LEFT, 0x45, 0x04, NOTHING, 0x20, BEFORE, 0x0f, 0x0b], // loop: done?
        &[0x20, LEFT, 0x41, STEP, 0x20, LEFT, 0x41, STEP, 0x49, 0x1b, 0x21, BY], // the smaller one
        &[0x20, VALUE, 0x20, BY],
        &grow,
        // Half of it cannot be taken back: no memory for a few hundred KB is a trap.
        &[0x41, 0x7f, 0x46, 0x04, NOTHING, 0x00, 0x0b],
        &[0x20, LEFT, 0x20, BY, 0x6b, 0x21, LEFT, 0x0c, 0x00, 0x0b, 0x00, 0x0b], // and again
    ]
    .concat()
}

/// `i32.const` of a number that is not negative.
fn constant(value: i32) -> Vec<u8> {
    let mut bytes = vec![0x41];
    let mut left = value;
    while left >= 0x40 {
        bytes.push((left & 0x7f) as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}
