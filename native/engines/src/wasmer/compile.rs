//! Compiling a module to an artifact, which is an ELF image that is mapped where it is loaded.

use std::borrow::Cow;
use std::num::NonZero;
use std::sync::Arc;

use wasmer::sys::{CompilerConfig, EngineBuilder, Features};
use wasmer::{CompileError, MemoryStyle, TableStyle};
use wasmer_compiler::{ArtifactBuild, ArtifactCreate, Engine, ModuleEnvironment};
use wasmer_compiler_cranelift::Cranelift;
use wasmer_types::entity::PrimaryMap;

use super::image::{self, Pages};
use super::limits;
use super::meter::{self, Meter};
use super::target::{Foreign, Kind};
use crate::guest::{Failure, MAX_TABLES, guarded};

/// The version of Wasmer, which wrote an artifact and alone can load it.
pub const VERSION: &str = wasmer_compiler::VERSION;

/// What a guest may be written in: what the agent's reader of modules knows.
fn features() -> Features {
    let mut features = Features::none();
    features
        .reference_types(true)
        .simd(true)
        .bulk_memory(true)
        .multi_value(true)
        .extended_const(true);
    features
}

/// All that an artifact depends on beside module, version and processor.
pub fn settings(wide: bool) -> String {
    format!(
        "cranelift,speed,nan-canonical,elf,image=1,{},ration={}/{},{:?}",
        if wide { "wide" } else { "narrow" },
        meter::SCHEME,
        meter::RATION,
        features(),
    )
}

/// An artifact of a module. `wide`: for memories that reserve all that a pointer reaches.
/// `kind`: for all processors of this kind, and not for this machine's own.
pub fn compile(wasm: &[u8], wide: bool, kind: Option<&'static Kind>) -> Result<Vec<u8>, Failure> {
    compile_by(wasm, wide, kind, kind.is_some_and(|kind| !kind.is_here()))
}

/// The same; `foreign`: by what is needed for other processors than this machine's.
pub fn compile_by(
    wasm: &[u8],
    wide: bool,
    kind: Option<&'static Kind>,
    foreign: bool,
) -> Result<Vec<u8>, Failure> {
    // The engine panics where it is asked for what it has not implemented.
    guarded(|| compiled(wasm, wide, kind, foreign))
        .unwrap_or_else(|says| Err(Failure::panic(&says)))
}

fn compiled(
    wasm: &[u8],
    wide: bool,
    kind: Option<&'static Kind>,
    foreign: bool,
) -> Result<Vec<u8>, Failure> {
    let invalid = |error: CompileError| Failure::Module(format!("not valid Wasm: {error}"));
    engine(None, None).validate(wasm).map_err(invalid)?;
    let counts = ModuleEnvironment::new()
        .translate(wasm)
        .map_err(|error| invalid(CompileError::Wasm(error)))?
        .module;
    if counts.tables.len() > MAX_TABLES {
        return Err(Failure::Module(format!(
            "it has {} tables; a plugin may have {}",
            counts.tables.len(),
            MAX_TABLES
        )));
    }

    let styles = limits::Styles { wide };
    let memories: PrimaryMap<_, MemoryStyle> =
        counts.memories.values().map(|kind| styles.memory_style(kind)).collect();
    // One more: the meter's.
    let tables: PrimaryMap<_, TableStyle> =
        (0..=counts.tables.len()).map(|_| TableStyle::CallerChecksSignature).collect();
    let meter = Meter::new(counts.globals.len(), counts.tables.len(), counts.signatures.len());
    let engine = engine(Some(meter), kind.filter(|_| foreign));
    let target = match kind {
        Some(kind) => kind.target().map_err(Failure::Engine)?,
        None => engine.target().clone(),
    };
    let image = match counts.memories.values().as_slice() {
        [memory] if counts.num_imported_memories == 0 => image::taken(wasm, memory.minimum.0),
        _ => None,
    };
    let (wasm, pages) = match image {
        Some((without, pages)) => (Cow::Owned(without), pages),
        None => (Cow::Borrowed(wasm), Pages::new()),
    };
    let mut artifact =
        ArtifactBuild::new(&mut engine.inner_mut(), &wasm, &target, memories, tables, None)
            .map_err(|error| error.to_string())
            .and_then(|artifact| artifact.serialize().map_err(|error| error.to_string()))
            .map_err(|error| {
                Failure::Engine(format!("wasmer cannot compile the module: {error}"))
            })?;
    image::append(&mut artifact, &pages);
    Ok(artifact)
}

fn engine(meter: Option<Meter>, foreign: Option<&'static Kind>) -> Engine {
    let mut config = Cranelift::new();
    // One thread: a core is left to the board.
    config.canonicalize_nans(true).num_threads(NonZero::<usize>::MIN);
    CompilerConfig::experimental_artifact(&mut config, foreign.is_none());
    if let Some(meter) = meter {
        config.push_middleware(Arc::new(meter));
    }
    let builder = match foreign {
        Some(kind) => EngineBuilder::new(Foreign(config, kind)),
        None => EngineBuilder::new(config),
    };
    builder.set_features(Some(features())).engine()
}
