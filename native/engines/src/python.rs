//! The module `edge_agent_engines`. Calls let other threads of Python run; functions of the host
//! are called back with the interpreter's lock held.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use pyo3::{create_exception, exceptions::PyException};

use crate::guest::{
    self, Exported, Failure, Guest, Host, HostError, Kind, Loaded, Running, Signature, Stop, Wanted,
};
#[cfg(has_wasmer)]
use crate::wasmer;
use crate::{reentrancy, wasmi};

create_exception!(edge_agent_engines, InvalidModule, PyException, "The module is not valid.");
create_exception!(edge_agent_engines, EngineFailed, PyException, "The engine cannot.");
create_exception!(
    edge_agent_engines,
    Stopped,
    PyException,
    "A call ended before its time. Arguments: what it was, then what the adapter words:\n\
     trap (export, says), time (export), host (export, place; from what was raised),\n\
     outside (action, pointer, size, held), empty (size), reply (export, size)."
);

/// The functions that Python offers one instance.
struct Functions {
    calls: Vec<Py<PyAny>>,
    /// What they take first; only while a call runs, so that nothing refers to itself.
    guest: Mutex<Option<Py<PyAny>>>,
    number: u64,
}

impl Functions {
    /// Set what the functions take first, and return what they took.
    fn set_guest(&self, guest: Option<Py<PyAny>>) -> Option<Py<PyAny>> {
        let mut place = self.guest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        std::mem::replace(&mut *place, guest)
    }

    fn guest(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        let place = self.guest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        place.as_ref().map(|guest| guest.clone_ref(py))
    }
}

impl Host for Functions {
    fn call(
        &self,
        caller: &mut dyn Guest,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, HostError> {
        Python::attach(|py| {
            let guest = self.guest(py);
            let given = reentrancy::during(self.number, caller, || {
                let mut all = Vec::with_capacity(arguments.len() + 1);
                all.push(guest.into_pyobject(py)?.into_any());
                for argument in arguments {
                    all.push(argument.into_pyobject(py)?.into_any());
                }
                let given = self.calls[place].bind(py).call1(PyTuple::new(py, all)?)?;
                if given.is_none() { Ok(0) } else { given.extract::<u64>() }
            });
            given.map_err(Into::into)
        })
    }
}

/// A module that is ready to be instantiated.
#[pyclass(frozen)]
struct Module(Box<dyn Loaded>);

#[pymethods]
impl Module {
    /// Load the artifact `path` of `engine` for guests with so much stack. EngineFailed: it is
    /// none.
    #[staticmethod]
    fn load(py: Python<'_>, engine: &str, path: PathBuf, stack_bytes: usize) -> PyResult<Self> {
        let engine = Engine::named(engine)?;
        py.detach(|| engine.load(&path, stack_bytes)).map(Self).map_err(EngineFailed::new_err)
    }

    /// The exported functions: name, parameters and results.
    fn functions(&self) -> Vec<Exported> {
        self.0.functions()
    }

    /// An instance, started.
    ///
    /// `functions`: what it imports, in its order: parameters, results ("i32", "i64") and what
    /// to call with `guest` and unsigned integers. `exports`: what will be called.
    /// `fuel`: the exported global that counts it, if it is there.
    /// Stopped. EngineFailed: the functions are not what the module imports.
    #[expect(clippy::too_many_arguments, reason = "one call of Python's")]
    fn instantiate(
        &self,
        py: Python<'_>,
        guest: Py<PyAny>,
        functions: Vec<(Vec<String>, Vec<String>, Py<PyAny>)>,
        exports: Vec<String>,
        fuel: String,
        memory_bytes: u64,
        reply_bytes: u64,
        text_bytes: u64,
        seconds: f64,
    ) -> PyResult<Instance> {
        let mut imports = Vec::new();
        let mut calls = Vec::new();
        for (params, results, call) in functions {
            imports.push(signature(&params, &results)?);
            calls.push(call);
        }
        let number = reentrancy::number();
        let host = Arc::new(Functions { calls, guest: Mutex::new(Some(guest)), number });
        let time = duration(seconds);
        let given: Arc<dyn Host> = host.clone();
        let wanted = Wanted { host: given, imports, exports, fuel, memory_bytes, time };
        let made = py.detach(|| self.0.instantiate(wanted));
        host.set_guest(None);
        let running = made.map_err(EngineFailed::new_err)?.map_err(|stop| stopped(py, stop))?;
        let held = AtomicU64::new(running.memory_bytes());
        let running = Mutex::new(Some(running));
        Ok(Instance { running, host, held, reply_bytes, text_bytes })
    }
}

/// A running instance; of use to one call at a time, and to what that calls back.
#[pyclass(frozen)]
struct Instance {
    running: Mutex<Option<Box<dyn Running>>>,
    host: Arc<Functions>,
    held: AtomicU64,
    reply_bytes: u64,
    text_bytes: u64,
}

#[pymethods]
impl Instance {
    /// A method's whole call: (reply, whether it is an error's text). Stopped.
    fn exchange<'py>(
        &self,
        py: Python<'py>,
        guest: Py<PyAny>,
        export: &str,
        request: &[u8],
        seconds: f64,
    ) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        let (reply, text, time) = (self.reply_bytes, self.text_bytes, duration(seconds));
        let (data, failed) = self
            .with(py, guest, time, |guest| guest::exchange(guest, export, request, reply, text))?;
        Ok((PyBytes::new(py, &data), failed))
    }

    /// Run one export: its result, 0 without one. Stopped.
    ///
    /// `seconds` are the time that it may take, unless a function of the host calls: then it
    /// is a part of the call that runs.
    fn call(
        &self,
        py: Python<'_>,
        guest: Py<PyAny>,
        export: &str,
        first: u32,
        second: u32,
        seconds: f64,
    ) -> PyResult<u64> {
        let nested = reentrancy::with(self.host.number, |caller| {
            let caller = Lent(caller);
            py.detach(move || caller.run(export, first, second))
        });
        if let Some(result) = nested {
            return result.map_err(|stop| stopped(py, stop));
        }
        self.with(py, guest, duration(seconds), |guest| guest.run(export, first, second))
    }

    /// What the module's own counter of fuel says; None: it counts none.
    fn fuel(&self) -> PyResult<Option<i64>> {
        match reentrancy::with(self.host.number, |caller| caller.fuel()) {
            Some(fuel) => Ok(fuel),
            None => self.at_rest(|running| running.fuel()),
        }
    }

    /// Set that counter; whether there is one.
    fn set_fuel(&self, fuel: i64) -> PyResult<bool> {
        self.at_rest(|running| running.set_fuel(fuel))
    }

    /// Copy out of the memory. Stopped: `outside`.
    fn read<'py>(
        &self,
        py: Python<'py>,
        pointer: u32,
        size: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let data = match reentrancy::with(self.host.number, |caller| caller.read(pointer, size)) {
            Some(data) => data,
            None => self.at_rest(|running| running.read(pointer, size))?,
        };
        data.map(|data| PyBytes::new(py, &data)).map_err(|stop| stopped(py, stop))
    }

    /// Copy into the memory. Stopped: `outside`.
    fn write(&self, py: Python<'_>, pointer: u32, data: &[u8]) -> PyResult<()> {
        let written = match reentrancy::with(self.host.number, |caller| caller.write(pointer, data))
        {
            Some(written) => written,
            None => self.at_rest(|running| running.write(pointer, data))?,
        };
        written.map_err(|stop| stopped(py, stop))
    }

    /// Bytes of memory held now; while another thread calls, held before.
    fn memory_bytes(&self) -> u64 {
        if let Ok(running) = self.running.try_lock() {
            let held = running.as_ref().map_or(0, |running| running.memory_bytes());
            self.held.store(held, Ordering::Relaxed);
        }
        self.held.load(Ordering::Relaxed)
    }

    /// Give everything back. RuntimeError: a call is running.
    fn close(&self) -> PyResult<()> {
        match self.running.try_lock() {
            Ok(mut running) => *running = None,
            Err(TryLockError::Poisoned(poisoned)) => *poisoned.into_inner() = None,
            Err(TryLockError::WouldBlock) => {
                return Err(PyRuntimeError::new_err("an instance was closed during a call of it"));
            }
        }
        Ok(())
    }
}

impl Instance {
    /// A call without the interpreter's lock, in which the host's functions get `guest`.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        guest: Py<PyAny>,
        time: Duration,
        call: impl FnOnce(&mut dyn Guest) -> Result<T, Stop> + Send,
    ) -> PyResult<T> {
        self.at_rest(|running| {
            self.host.set_guest(Some(guest));
            let result = py.detach(|| {
                running.begin(time);
                call(running)
            });
            self.host.set_guest(None);
            result.map_err(|stop| stopped(py, stop))
        })?
    }

    fn at_rest<T>(&self, look: impl FnOnce(&mut dyn Running) -> T) -> PyResult<T> {
        match self.running.try_lock() {
            Ok(mut running) => match running.as_mut() {
                Some(running) => Ok(look(running.as_mut())),
                None => Err(PyRuntimeError::new_err("this instance is closed")),
            },
            Err(_) => Err(busy()),
        }
    }
}

fn busy() -> PyErr {
    PyRuntimeError::new_err("a call of this instance is running")
}

fn stopped(py: Python<'_>, stop: Stop) -> PyErr {
    match stop {
        Stop::Trap { export, says } => Stopped::new_err(("trap", export, says)),
        Stop::Time { export } => Stopped::new_err(("time", export)),
        Stop::Outside { action, pointer, size, held } => {
            Stopped::new_err(("outside", action, pointer, size, held))
        }
        Stop::Empty { size } => Stopped::new_err(("empty", size)),
        Stop::Reply { export, size } => Stopped::new_err(("reply", export, size)),
        Stop::Host { export, place, error } => {
            let raised = match error.downcast::<PyErr>() {
                Ok(raised) => *raised,
                Err(other) => PyRuntimeError::new_err(other.to_string()),
            };
            let stopped = Stopped::new_err(("host", export, place));
            stopped.set_cause(py, Some(raised));
            stopped
        }
    }
}

fn signature(params: &[String], results: &[String]) -> PyResult<Signature> {
    let kind = |name: &String| match name.as_str() {
        "i32" => Ok(Kind::I32),
        "i64" => Ok(Kind::I64),
        other => Err(PyValueError::new_err(format!("no function of a host takes {other}"))),
    };
    if results.len() > 1 {
        return Err(PyValueError::new_err("no function of a host has two results"));
    }
    let params = params.iter().map(kind).collect::<PyResult<_>>()?;
    Ok(Signature { params, result: results.first().map(kind).transpose()? })
}

/// A guest that waits for its host, used without the interpreter's lock.
struct Lent<'a>(&'a mut dyn Guest);

// SAFETY: the closure that takes it runs on this very thread: `detach` only lets go of the lock.
unsafe impl Send for Lent<'_> {}

impl Lent<'_> {
    fn run(self, export: &str, first: u32, second: u32) -> Result<u64, Stop> {
        self.0.run(export, first, second)
    }
}

/// Of a time that may be over already, or for ever.
fn duration(seconds: f64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(1 << 30);
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(LONGEST, |time| time.min(LONGEST))
}

/// An engine of this library.
#[derive(Clone, Copy)]
enum Engine {
    #[cfg(has_wasmer)]
    Wasmer,
    Wasmi,
}

impl Engine {
    fn named(name: &str) -> PyResult<Self> {
        match name {
            #[cfg(has_wasmer)]
            "wasmer" => Ok(Self::Wasmer),
            "wasmi" => Ok(Self::Wasmi),
            _ => Err(EngineFailed::new_err(format!("there is no {name} for this processor"))),
        }
    }

    fn load(self, path: &Path, stack_bytes: usize) -> Result<Box<dyn Loaded>, String> {
        match self {
            #[cfg(has_wasmer)]
            Self::Wasmer => boxed(wasmer::guest::Loaded::from_file(path, stack_bytes)),
            Self::Wasmi => boxed(wasmi::guest::Loaded::from_file(path, stack_bytes)),
        }
    }

    fn compile(self, wasm: &[u8], wide: bool, target: Option<&str>) -> Result<Vec<u8>, Failure> {
        let _ = wide;
        match (self, target) {
            #[cfg(has_wasmer)]
            (Self::Wasmer, None) => wasmer::compile::compile(wasm, wide, None),
            #[cfg(has_wasmer)]
            (Self::Wasmer, Some(name)) => {
                let kind = wasmer::target::Kind::named(name).ok_or_else(|| no_code(name))?;
                wasmer::compile::compile(wasm, wide, Some(kind))
            }
            (Self::Wasmi, None) => wasmi::compile::compile(wasm),
            (Self::Wasmi, Some(name)) => Err(no_code(name)),
        }
    }

    fn settings(self, wide: bool) -> String {
        let _ = wide;
        match self {
            #[cfg(has_wasmer)]
            Self::Wasmer => wasmer::compile::settings(wide),
            Self::Wasmi => wasmi::compile::settings().to_owned(),
        }
    }
}

fn boxed(loaded: Result<impl Loaded + 'static, String>) -> Result<Box<dyn Loaded>, String> {
    loaded.map(|loaded| Box::new(loaded) as Box<dyn Loaded>)
}

fn no_code(target: &str) -> Failure {
    Failure::Engine(format!("there is no code for {target} of this engine"))
}

/// An artifact of a module. `wide`: for memories that reserve all that a pointer reaches.
/// `target`: for every processor of this kind, see `targets`; without it for this machine's own.
/// InvalidModule, EngineFailed.
#[pyfunction]
#[pyo3(name = "compile", signature = (engine, wasm, wide, target = None))]
fn compile_module<'py>(
    py: Python<'py>,
    engine: &str,
    wasm: &[u8],
    wide: bool,
    target: Option<&str>,
) -> PyResult<Bound<'py, PyBytes>> {
    let engine = Engine::named(engine)?;
    match py.detach(|| engine.compile(wasm, wide, target)) {
        Ok(artifact) => Ok(PyBytes::new(py, &artifact)),
        Err(Failure::Module(says)) => Err(InvalidModule::new_err(says)),
        Err(Failure::Engine(says)) => Err(EngineFailed::new_err(says)),
    }
}

/// All that an artifact depends on beside module, version and processor. EngineFailed.
#[pyfunction]
fn settings(engine: &str, wide: bool) -> PyResult<String> {
    Engine::named(engine).map(|engine| engine.settings(wide))
}

/// The kinds of processors that `compile` makes code for, each with the features that it assumes.
#[cfg(has_wasmer)]
#[pyfunction]
fn targets() -> Vec<(&'static str, Vec<&'static str>)> {
    wasmer::target::KINDS.iter().map(|kind| (kind.name, kind.features.to_vec())).collect()
}

/// Which of such features this machine's processor has.
#[cfg(has_wasmer)]
#[pyfunction]
fn features() -> Vec<String> {
    wasmer::target::features_here()
}

/// How many bits the addresses of this library have.
#[pyfunction]
fn address_bits() -> u32 {
    usize::BITS - (address_bits as fn() -> u32 as usize).leading_zeros()
}

#[pymodule]
fn edge_agent_engines(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    // Of the engines that there are for this processor.
    #[cfg(has_wasmer)]
    module.add("WASMER", wasmer::compile::VERSION)?;
    module.add("WASMI", wasmi::compile::VERSION)?;
    module.add("BINDING", env!("CARGO_PKG_VERSION"))?;
    module.add("InvalidModule", py.get_type::<InvalidModule>())?;
    module.add("EngineFailed", py.get_type::<EngineFailed>())?;
    module.add("Stopped", py.get_type::<Stopped>())?;
    module.add_class::<Module>()?;
    module.add_class::<Instance>()?;
    module.add_function(wrap_pyfunction!(compile_module, module)?)?;
    module.add_function(wrap_pyfunction!(settings, module)?)?;
    module.add_function(wrap_pyfunction!(address_bits, module)?)?;
    #[cfg(has_wasmer)]
    {
        module.add_function(wrap_pyfunction!(targets, module)?)?;
        module.add_function(wrap_pyfunction!(features, module)?)?;
    }
    Ok(())
}
