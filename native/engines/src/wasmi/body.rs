//! Functions as wasmi computes them rightly, and in time. Some of its instructions are gone around:
//!
//! - `table.grow`, see `grow.rs`.
//! - `select` whose condition is a comparison with zero. wasmi 2.0.0 drops the comparison and selects
//!   by what was compared; where that is a local, it takes what another instruction left in
//!   its register instead (`try_fuse_select`, `I32Eq_Rsi`). The condition goes through a local of
//!   its own, which is a result that wasmi does not drop.
//! - `v128.store8_lane` and `v128.store16_lane`. With an offset of 64 KiB and more wasmi 2.0.0 reads
//!   such an instruction otherwise than it wrote it, and jumps to whatever comes next
//!   (`V128StoreLane8_Ss`). The lane is taken out and stored as a number.
//!
//! And a function with many locals begins with instructions that do nothing but cost fuel: a call
//! sets all locals to zero, up to 240 KB, for which wasmi takes none. A loop of such calls would
//! not be looked at for seconds.

use wasmparser::{BinaryReaderError, FunctionBody, MemArg, Operator, ValType};

use super::compile::{push, skip_count};
use super::grow::Growers;

// Core specification, 5.3 and 5.4.
const I32: u8 = 0x7f;
const NOP: u8 = 0x01;
const CALL: u8 = 0x10;
const LOCAL_TEE: u8 = 0x22;
const STORE8: u8 = 0x3a;
const STORE16: u8 = 0x3b;
const SIMD: u8 = 0xfd;
const EXTRACT8: u8 = 0x16; // i8x16.extract_lane_u
const EXTRACT16: u8 = 0x19; // i16x8.extract_lane_u

/// What a `nop` costs; by itself it would be free.
pub const NOP_FUEL: u8 = 16;
/// Cells of locals, of 8 bytes each, that are set to zero for a unit: as for bulk operations.
const CELLS_PER_FUEL: usize = 8;

/// A function with so many parameters, rewritten; None: it is as it should be.
pub fn rewritten(
    wasm: &[u8],
    body: &FunctionBody<'_>,
    params: u32,
    growers: &Growers,
) -> Result<Option<Vec<u8>>, BinaryReaderError> {
    let (mut groups, mut condition, mut cells) = (0, params, 0);
    for group in body.get_locals_reader()? {
        let (count, kind) = group?;
        condition += count;
        cells += count as usize * if kind == ValType::V128 { 2 } else { 1 };
        groups += 1;
    }
    let charge = cells / CELLS_PER_FUEL / usize::from(NOP_FUEL);
    let mut operators = body.get_operators_reader()?;
    let start = operators.original_position();
    let (mut code, mut from) = (vec![NOP; charge], start);
    let (mut changed, mut keeps, mut plain) = (charge > 0, false, false);
    while !operators.eof() {
        let at = operators.original_position();
        match operators.read()? {
            Operator::TableGrow { table } => {
                code.extend(&wasm[from..at]);
                code.push(CALL);
                push(&mut code, growers.function + table);
                from = operators.original_position();
                (changed, plain) = (true, false);
            }
            Operator::V128Store8Lane { memarg, lane } => {
                code.extend(&wasm[from..at]);
                store_lane(&mut code, [EXTRACT8, lane, STORE8], memarg);
                from = operators.original_position();
                (changed, plain) = (true, false);
            }
            Operator::V128Store16Lane { memarg, lane } => {
                code.extend(&wasm[from..at]);
                store_lane(&mut code, [EXTRACT16, lane, STORE16], memarg);
                from = operators.original_position();
                (changed, plain) = (true, false);
            }
            Operator::Select | Operator::TypedSelect { .. } => {
                if !plain {
                    code.extend(&wasm[from..at]);
                    code.push(LOCAL_TEE);
                    push(&mut code, condition);
                    from = at;
                    (changed, keeps) = (true, true);
                }
                plain = false;
            }
            // These are no comparisons.
            other => plain = matches!(other, Operator::LocalGet { .. } | Operator::I32Const { .. }),
        }
    }
    if !changed {
        return Ok(None);
    }
    let mut written = Vec::new();
    let locals = &wasm[body.range().start..start];
    if keeps {
        push(&mut written, groups + 1);
        written.extend(skip_count(locals));
        written.extend([1, I32]);
    } else {
        written.extend(locals);
    }
    written.extend(code);
    written.extend(&wasm[from..body.range().end]);
    Ok(Some(written))
}

/// The lane out of the vector on the stack, and a plain store of it; of the only memory.
fn store_lane(code: &mut Vec<u8>, [extract, lane, store]: [u8; 3], to: MemArg) {
    code.extend([SIMD, extract, lane, store]);
    push(code, to.align.into());
    push(code, to.offset as u32); // a memory of 32 bits has no larger ones
}
