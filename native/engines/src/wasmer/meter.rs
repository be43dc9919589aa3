//! Rations that last a few milliseconds, so that the guest asks its host whether to go on.
//!
//! Code takes units as it runs (`charges`). Where none are left, the guest calls its host
//! through a table of its own; the host answers with more, or traps. So a deadline needs no second thread.
//! (What a plugin is limited to as `fuel` is counted elsewhere: docs/adr/0021.)

use std::mem;

use wasmer::sys::wasmparser::{BlockType, Operator, ValType};
use wasmer::sys::{FunctionMiddleware, MiddlewareError, MiddlewareReaderState, ModuleMiddleware};
use wasmer::{
    ExportIndex, FunctionType, GlobalInit, GlobalType, LocalFunctionIndex, ModuleInfo, Mutability,
    TableType, Type,
};
use wasmer_types::SignatureHash;

use super::charges::charges;

/// Of what is charged for what, as part of an artifact's key: to be raised with any change of it.
pub const SCHEME: u32 = 3;
/// Units from one question to the next: some milliseconds of a slow processor.
pub const RATION: i64 = 50_000;
/// Bytes moved or filled at once for one unit: 1 << this.
const BYTES_SHIFT: i64 = 10;
/// What growing a memory takes: the host may copy all of it.
const GROWTH: i64 = RATION / 2;
/// What an operation on a table takes; Wasmer walks through all of it, whatever was asked.
const TABLE: i64 = RATION / 10;

/// The exports through which the host finds what is added; no ABI has such names.
pub const LEFT: &str = "edge-agent left";
/// The table whose only element the guest calls for more.
pub const ASK: &str = "edge-agent ask";
/// The module's start function, which must not run before that table is filled.
pub const START: &str = "edge-agent start";

/// Where a module's additions are: what is appended stands behind what is there.
#[derive(Clone, Copy, Debug)]
struct Places {
    left: u32,
    size: u32,
    table: u32,
    kind: u32,
}

/// Adds the counting to one module.
#[derive(Debug)]
pub struct Meter(Places);

impl Meter {
    /// For the module that these counts are of.
    pub fn new(globals: usize, tables: usize, signatures: usize) -> Self {
        Self(Places {
            left: globals as u32,
            size: globals as u32 + 1,
            table: tables as u32,
            kind: signatures as u32,
        })
    }
}

impl ModuleMiddleware for Meter {
    fn generate_function_middleware<'a>(
        &self,
        _: LocalFunctionIndex,
    ) -> Box<dyn FunctionMiddleware<'a> + 'a> {
        Box::new(Body { places: self.0, locals: 0, operators: Vec::new(), depth: 0 })
    }

    fn transform_module_info(&self, module: &mut ModuleInfo) -> Result<(), MiddlewareError> {
        let kind = FunctionType::new([Type::I64], [Type::I64]);
        module.signature_hashes.push(SignatureHash(kind.signature_hash()));
        module.signatures.push(kind);
        let left = module.globals.push(GlobalType::new(Type::I64, Mutability::Var));
        module.global_initializers.push(GlobalInit::I64Const(RATION));
        module.globals.push(GlobalType::new(Type::I32, Mutability::Var));
        module.global_initializers.push(GlobalInit::I32Const(0));
        // No maximum: Wasmer optimises the only table of a fixed size, which be the guest's own.
        let table = module.tables.push(TableType::new(Type::FuncRef, 1, None));
        module.exports.insert(LEFT.into(), ExportIndex::Global(left));
        module.exports.insert(ASK.into(), ExportIndex::Table(table));
        if let Some(start) = module.start_function.take() {
            module.exports.insert(START.into(), ExportIndex::Function(start));
        }
        // For traces, which nobody reads; a Go module's take megabytes.
        module.function_names.clear();
        module.custom_sections.clear();
        module.custom_sections_data = Default::default();
        Ok(())
    }
}

/// A function, held back until its end is known: what its loops take depends on it.
#[derive(Debug)]
struct Body<'a> {
    places: Places,
    locals: usize,
    operators: Vec<Operator<'a>>,
    depth: usize,
}

impl<'a> FunctionMiddleware<'a> for Body<'a> {
    fn locals_info(&mut self, locals: &[ValType]) {
        self.locals = locals.len();
    }

    fn feed(
        &mut self,
        operator: Operator<'a>,
        state: &mut MiddlewareReaderState<'a>,
    ) -> Result<(), MiddlewareError> {
        match operator {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => self.depth += 1,
            Operator::End if self.depth == 0 => {
                self.operators.push(operator);
                self.emit(state);
                return Ok(());
            }
            Operator::End => self.depth -= 1,
            _ => {}
        }
        self.operators.push(operator);
        Ok(())
    }
}

impl<'a> Body<'a> {
    fn emit(&mut self, state: &mut MiddlewareReaderState<'a>) {
        let operators = mem::take(&mut self.operators);
        let mut charges = charges(&operators, self.locals).into_iter().peekable();
        for (at, operator) in operators.into_iter().enumerate() {
            while let Some((_, units)) = charges.next_if(|(before, _)| *before == at) {
                self.charge_units(units, state);
            }
            match operator {
                // Of these the size stands on the stack, in bytes.
                Operator::MemoryCopy { .. }
                | Operator::MemoryFill { .. }
                | Operator::MemoryInit { .. } => self.charge_bytes(state),
                Operator::MemoryGrow { .. } => self.charge_units(GROWTH, state),
                Operator::TableGrow { .. }
                | Operator::TableFill { .. }
                | Operator::TableCopy { .. }
                | Operator::TableInit { .. } => self.charge_units(TABLE, state),
                _ => {}
            }
            state.push_operator(operator);
        }
    }

    fn charge_units(&self, units: i64, state: &mut MiddlewareReaderState<'a>) {
        state.push_operator(Operator::GlobalGet { global_index: self.places.left });
        state.push_operator(Operator::I64Const { value: units });
        self.take(state);
    }

    fn charge_bytes(&self, state: &mut MiddlewareReaderState<'a>) {
        let Places { left, size, .. } = self.places;
        state.extend([
            Operator::GlobalSet { global_index: size },
            Operator::GlobalGet { global_index: size },
            Operator::GlobalGet { global_index: left },
            Operator::GlobalGet { global_index: size },
            Operator::I64ExtendI32U,
            Operator::I64Const { value: BYTES_SHIFT },
            Operator::I64ShrU,
        ]);
        self.take(state);
    }

    /// Subtract what is on the stack, and ask if nothing is left.
    fn take(&self, state: &mut MiddlewareReaderState<'a>) {
        let Places { left, table, kind, .. } = self.places;
        state.extend([
            Operator::I64Sub,
            Operator::GlobalSet { global_index: left },
            Operator::GlobalGet { global_index: left },
            Operator::I64Const { value: 0 },
            Operator::I64LtS,
            Operator::If { blockty: BlockType::Empty },
            // Told how much is owed.
            Operator::GlobalGet { global_index: left },
            Operator::I32Const { value: 0 },
            Operator::CallIndirect { type_index: kind, table_index: table },
            Operator::GlobalSet { global_index: left },
            Operator::End,
        ]);
    }
}
