//! Random valid modules, by wasm-smith, that do what a plugin may.

use arbitrary::Unstructured;
use wasm_encoder::{Instruction, MemArg, MemArgTarget};
use wasm_smith::{Config, Module};
use wasmparser::ValType;

use crate::shape::{self, Method, Outline};

/// Functions that are called from outside, of one module.
const MAX_METHODS: usize = 12;
/// A module is not made of any noise.
const MAX_TRIES: usize = 100;
/// Turns of loops and calls that a method may make where it counts them itself.
const TURNS: i32 = 2000;
/// An odd number without a pattern: 2^64 divided by the golden ratio.
const MIX: i64 = 0x9E37_79B9_7F4A_7C15_u64.cast_signed();

/// What the host offers, by type: numbers that are integers, as for plugins.
const IMPORTS: &[(&str, &[u8])] = &[
    ("method", &[0x60, 2, 0x7f, 0x7f, 1, 0x7e]),
    ("log", &[0x60, 3, 0x7f, 0x7f, 0x7f, 0]),
    ("wide", &[0x60, 2, 0x7e, 0x7f, 1, 0x7f]),
    ("grow", &[0x60, 0, 1, 0x7e]),
];

/// A sequence of numbers that looks random: splitmix64.
pub struct Chance(u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(MIX.cast_unsigned());
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ word >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

/// The module of a seed.
pub fn module(seed: u64) -> Result<Vec<u8>, String> {
    let mut chance = Chance(seed);
    let mut made = (0..MAX_TRIES)
        .find_map(|_| {
            let size = 256 << chance.below(6);
            let noise: Vec<u8> = (0..size / 8).flat_map(|_| chance.next().to_le_bytes()).collect();
            let config = config(&mut chance);
            Module::new(config, &mut Unstructured::new(&noise)).ok()
        })
        .ok_or_else(|| format!("seed {seed}: nothing came of {MAX_TRIES} tries"))?;
    // One in eight may go on for ever: it runs with a limit of fuel, and until its time is up.
    let turns = match chance.one_in(8) {
        true => None,
        false => Some(made.ensure_termination(TURNS as u32).map_err(|error| error.to_string())?),
    };
    let outline = Outline::of(&made.to_bytes()).map_err(|says| format!("seed {seed}: {says}"))?;
    let methods = methods(&outline, turns, &mut chance);
    Ok(shape::plugin(&outline, &methods, 1, true))
}

fn config(chance: &mut Chance) -> Config {
    Config {
        available_imports: Some(imports()),
        // What the agent's engines take; `wasm/module.py` and the engines' settings say the rest.
        bulk_memory_enabled: true,
        compact_imports_enabled: false,
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        extended_const_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: false,
        shared_everything_threads_enabled: false,
        simd_enabled: !chance.one_in(3),
        tail_call_enabled: false,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        allow_start_export: chance.one_in(4),
        disallow_traps: chance.one_in(2),
        generate_custom_sections: chance.one_in(8),
        min_funcs: 1,
        max_funcs: 1 + chance.below(16) as usize,
        max_imports: chance.below(5) as usize,
        max_instructions: 20 << chance.below(5),
        max_types: 20,
        max_globals: chance.below(12) as usize,
        max_exports: 0,
        min_memories: 1,
        max_memories: 1,
        max_memory32_bytes: 65536 << chance.below(8),
        memory_max_size_required: chance.one_in(2),
        max_tables: chance.below(5) as usize,
        max_table_elements: 10_u64 << chance.below(14),
        table_max_size_required: chance.one_in(3),
        max_data_segments: 6,
        max_element_segments: 6,
        max_elements: 30,
        ..Config::default()
    }
}

/// A module that imports all that is offered.
fn imports() -> Vec<u8> {
    let mut types = vec![IMPORTS.len() as u8];
    let mut entries = types.clone();
    for (number, (name, kind)) in IMPORTS.iter().enumerate() {
        types.extend(*kind);
        entries.extend([4]);
        entries.extend(b"fuzz");
        entries.push(name.len() as u8);
        entries.extend(name.as_bytes());
        entries.extend([0, number as u8]);
    }
    let mut module = wasm_encoder::Module::new();
    module.section(&wasm_encoder::RawSection { id: 1, data: &types });
    module.section(&wasm_encoder::RawSection { id: 2, data: &entries });
    module.finish()
}

/// Calls of the module's functions, whose results are folded into the added global; and `state`,
/// which answers all globals and the sizes of the tables.
fn methods(outline: &Outline, turns: Option<u32>, chance: &mut Chance) -> Vec<Method> {
    let folded = outline.globals.len() as u32;
    let imported = outline.imports.iter().filter(|(_, _, function)| function.is_some()).count();
    let mut methods = Vec::new();
    for number in imported as u32..outline.functions.len() as u32 {
        if methods.len() == MAX_METHODS {
            break;
        }
        let Some(kind) = outline.function(number) else { continue };
        let mut code = Vec::new();
        if let Some(global) = turns {
            code.extend([Instruction::I32Const(TURNS), Instruction::GlobalSet(global)]);
        }
        for one in kind.params() {
            code.extend(argument(*one, chance));
        }
        code.push(Instruction::Call(number));
        for one in kind.results().iter().rev() {
            code.extend(number_of(*one));
            code.extend([
                Instruction::GlobalGet(folded),
                Instruction::I64Const(MIX),
                Instruction::I64Mul,
                Instruction::I64Xor,
                Instruction::GlobalSet(folded),
            ]);
        }
        code.push(Instruction::I64Const(0));
        let locals = vec![wasm_encoder::ValType::V128];
        methods.push(Method { name: format!("f{}", methods.len()), locals, code });
    }
    methods.push(state(outline, folded));
    methods
}

fn argument(kind: ValType, chance: &mut Chance) -> Option<Instruction<'static>> {
    const SMALL: u64 = 70_000; // some lie in a memory, some in a table, some beyond
    let mut word = chance.next();
    if chance.one_in(2) {
        word = chance.below(SMALL);
    }
    Some(match kind {
        ValType::I32 => Instruction::I32Const((word as u32).cast_signed()),
        ValType::I64 => Instruction::I64Const(word.cast_signed()),
        ValType::F32 => Instruction::F32Const(f32::from_bits(word as u32).into()),
        ValType::F64 => Instruction::F64Const(f64::from_bits(word).into()),
        ValType::V128 => {
            let wide = u128::from(word) << 64 | u128::from(chance.next());
            Instruction::V128Const(wide.cast_signed())
        }
        reference => return shape::zero(reference),
    })
}

/// An i64 of what is on top of the stack.
fn number_of(kind: ValType) -> Vec<Instruction<'static>> {
    const SPARE: u32 = 2; // the local of a method
    match kind {
        ValType::I32 => vec![Instruction::I64ExtendI32U],
        ValType::I64 => vec![],
        ValType::F32 => vec![Instruction::I32ReinterpretF32, Instruction::I64ExtendI32U],
        ValType::F64 => vec![Instruction::I64ReinterpretF64],
        ValType::V128 => vec![
            Instruction::LocalTee(SPARE),
            Instruction::I64x2ExtractLane(0),
            Instruction::I64Const(MIX),
            Instruction::I64Mul,
            Instruction::LocalGet(SPARE),
            Instruction::I64x2ExtractLane(1),
            Instruction::I64Xor,
        ],
        ValType::Ref(_) => vec![Instruction::RefIsNull, Instruction::I64ExtendI32U],
    }
}

fn state(outline: &Outline, folded: u32) -> Method {
    let mut code = Vec::new();
    let mut size = 0;
    let mut keep = |value: Vec<Instruction<'static>>| {
        code.push(Instruction::I32Const(0));
        code.extend(value);
        code.push(Instruction::I64Store(MemArg {
            offset: size,
            align: 3,
            target: MemArgTarget::Memory(0),
            ordering: None,
        }));
        size += 8;
    };
    let kinds = outline.globals.iter().map(|one| one.content_type).chain([ValType::I64]);
    for (number, kind) in (0..=folded).zip(kinds) {
        let mut value = vec![Instruction::GlobalGet(number)];
        value.extend(number_of(kind));
        keep(value);
    }
    for table in 0..outline.tables.len() as u32 {
        keep(vec![Instruction::TableSize(table), Instruction::I64ExtendI32U]);
    }
    code.push(Instruction::I64Const(size.cast_signed())); // at 0
    let locals = vec![wasm_encoder::ValType::V128];
    Method { name: "state".to_owned(), locals, code }
}
