//! The module `edge_agent_wasmer`. Calls let other threads of Python run; functions of the host
//! are called back with the interpreter's lock held.

use std::error::Error;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use pyo3::{create_exception, exceptions::PyException};
use wasmer::{FunctionType, Type};

use crate::compile::{self, Failure};
use crate::guest::{Caller, Host, Loaded, Running, Stop};
use crate::lend;

create_exception!(edge_agent_wasmer, InvalidModule, PyException, "The module is not valid.");
create_exception!(edge_agent_wasmer, EngineFailed, PyException, "The engine cannot.");
create_exception!(
    edge_agent_wasmer,
    Stopped,
    PyException,
    "A call ended before its time. Arguments: what it was, then what the adapter words:\n\
     trap (export, says), time (export), host (export, place; from what was raised),\n\
     outside (action, pointer, size, held), empty (size), reply (export, size)."
);

/// The functions that Python offers one instance.
pub struct Functions {
    calls: Vec<Py<PyAny>>,
    /// What they take first; only while a call runs, so that nothing refers to itself.
    guest: Option<Py<PyAny>>,
    number: u64,
}

impl Host for Functions {
    fn call(
        caller: &mut Caller<'_, Self>,
        place: usize,
        arguments: &[u64],
    ) -> Result<u64, Box<dyn Error + Send + Sync>> {
        Python::attach(|py| {
            let host = caller.host();
            let (number, call) = (host.number, host.calls[place].clone_ref(py));
            let guest = host.guest.as_ref().map(|guest| guest.clone_ref(py));
            let given = lend::during(number, caller, || {
                let mut all = Vec::with_capacity(arguments.len() + 1);
                all.push(guest.into_pyobject(py)?.into_any());
                for argument in arguments {
                    all.push(argument.into_pyobject(py)?.into_any());
                }
                let given = call.bind(py).call1(PyTuple::new(py, all)?)?;
                if given.is_none() { Ok(0) } else { given.extract::<u64>() }
            });
            given.map_err(Into::into)
        })
    }
}

/// An artifact that is mapped.
#[pyclass(frozen)]
struct Module(Loaded);

#[pymethods]
impl Module {
    /// Map the artifact `path` for guests with so much stack. EngineFailed: it is none.
    #[staticmethod]
    fn load(py: Python<'_>, path: PathBuf, stack_bytes: usize) -> PyResult<Self> {
        py.detach(|| Loaded::from_file(&path, stack_bytes)).map(Self).map_err(EngineFailed::new_err)
    }

    /// The exported functions: name, parameters and results.
    fn functions(&self) -> Vec<(String, Vec<String>, Vec<String>)> {
        let names =
            |kinds: &[Type]| kinds.iter().map(|kind| kind.to_string().to_lowercase()).collect();
        self.0
            .functions()
            .into_iter()
            .map(|(name, kind)| (name, names(kind.params()), names(kind.results())))
            .collect()
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
        fuel: &str,
        memory_bytes: u64,
        reply_bytes: u64,
        text_bytes: u64,
        seconds: f64,
    ) -> PyResult<Instance> {
        let mut kinds = Vec::new();
        let mut calls = Vec::new();
        for (params, results, call) in functions {
            kinds.push(FunctionType::new(types(&params)?, types(&results)?));
            calls.push(call);
        }
        let number = lend::number();
        let host = Functions { calls, guest: Some(guest), number };
        let loaded = &self.0;
        let time = duration(seconds);
        let made =
            py.detach(|| Running::new(loaded, host, &kinds, &exports, fuel, memory_bytes, time));
        let mut running = made.map_err(EngineFailed::new_err)?.map_err(|stop| stopped(py, stop))?;
        running.host().guest = None;
        let held = AtomicU64::new(running.memory_bytes());
        let running = Mutex::new(Some(running));
        Ok(Instance { running, held, number, reply_bytes, text_bytes })
    }
}

/// A running instance; of use to one call at a time, and to what that calls back.
#[pyclass(frozen)]
struct Instance {
    running: Mutex<Option<Running<Functions>>>,
    held: AtomicU64,
    number: u64,
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
        let (data, failed) =
            self.with(py, guest, |running| running.exchange(export, request, reply, text, time))?;
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
        let nested =
            lend::with(self.number, |caller| py.detach(|| caller.call(export, first, second)));
        if let Some(result) = nested {
            return result.map_err(|stop| stopped(py, stop));
        }
        let time = duration(seconds);
        self.with(py, guest, |running| running.call(export, first, second, time))
    }

    /// What the module's own counter of fuel says; None: it counts none.
    fn fuel(&self) -> PyResult<Option<i64>> {
        self.at_rest(Running::fuel)
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
        let data = match lend::with(self.number, |caller| caller.read(pointer, size)) {
            Some(data) => data,
            None => self.at_rest(|running| running.read(pointer, size))?,
        };
        data.map(|data| PyBytes::new(py, &data)).map_err(|stop| stopped(py, stop))
    }

    /// Copy into the memory. Stopped: `outside`.
    fn write(&self, py: Python<'_>, pointer: u32, data: &[u8]) -> PyResult<()> {
        let written = match lend::with(self.number, |caller| caller.write(pointer, data)) {
            Some(written) => written,
            None => self.at_rest(|running| running.write(pointer, data))?,
        };
        written.map_err(|stop| stopped(py, stop))
    }

    /// Bytes of memory held now; while another thread calls, held before.
    fn memory_bytes(&self) -> u64 {
        if let Ok(running) = self.running.try_lock() {
            let held = running.as_ref().map_or(0, Running::memory_bytes);
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
        call: impl FnOnce(&mut Running<Functions>) -> Result<T, Stop> + Send,
    ) -> PyResult<T> {
        self.at_rest(|running| {
            running.host().guest = Some(guest);
            let result = py.detach(|| call(running));
            running.host().guest = None;
            result.map_err(|stop| stopped(py, stop))
        })?
    }

    fn at_rest<T>(&self, look: impl FnOnce(&mut Running<Functions>) -> T) -> PyResult<T> {
        match self.running.try_lock() {
            Ok(mut running) => match running.as_mut() {
                Some(running) => Ok(look(running)),
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

fn types(names: &[String]) -> PyResult<Vec<Type>> {
    names
        .iter()
        .map(|name| match name.as_str() {
            "i32" => Ok(Type::I32),
            "i64" => Ok(Type::I64),
            other => Err(PyValueError::new_err(format!("no function of a host takes {other}"))),
        })
        .collect()
}

/// Of a time that may be over already, or for ever.
fn duration(seconds: f64) -> Duration {
    const LONGEST: Duration = Duration::from_secs(1 << 30);
    Duration::try_from_secs_f64(seconds.max(0.0)).map_or(LONGEST, |time| time.min(LONGEST))
}

/// An artifact of a module. InvalidModule, EngineFailed.
#[pyfunction]
#[pyo3(name = "compile")]
fn compile_module<'py>(py: Python<'py>, wasm: &[u8], wide: bool) -> PyResult<Bound<'py, PyBytes>> {
    match py.detach(|| compile::compile(wasm, wide)) {
        Ok(artifact) => Ok(PyBytes::new(py, &artifact)),
        Err(Failure::Module(says)) => Err(InvalidModule::new_err(says)),
        Err(Failure::Engine(says)) => Err(EngineFailed::new_err(says)),
    }
}

/// All that an artifact depends on beside module, version and processor.
#[pyfunction]
fn settings(wide: bool) -> String {
    compile::settings(wide)
}

/// How many bits the addresses of this library have.
#[pyfunction]
fn address_bits() -> u32 {
    usize::BITS - (address_bits as fn() -> u32 as usize).leading_zeros()
}

#[pymodule]
fn edge_agent_wasmer(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("VERSION", compile::VERSION)?;
    module.add("BINDING", env!("CARGO_PKG_VERSION"))?;
    module.add("InvalidModule", py.get_type::<InvalidModule>())?;
    module.add("EngineFailed", py.get_type::<EngineFailed>())?;
    module.add("Stopped", py.get_type::<Stopped>())?;
    module.add_class::<Module>()?;
    module.add_class::<Instance>()?;
    module.add_function(wrap_pyfunction!(compile_module, module)?)?;
    module.add_function(wrap_pyfunction!(settings, module)?)?;
    module.add_function(wrap_pyfunction!(address_bits, module)?)?;
    Ok(())
}
