//! Linking objects in memory, for any of the processors that there are images for.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libwild::args::Args;
use libwild::{FileSystem, FileType, InputFileData, Linker, OutputFileData, OutputOptions, error};
use wasmer_types::CompileError;

use super::objects::failed;

const IMAGE: &str = "wasmer-image.so";

/// The shared object of these; `emulation` is the linker's name of the processor.
pub fn link(objects: Vec<Vec<u8>>, emulation: &str) -> Result<Vec<u8>, CompileError> {
    let files = Files::default();
    let mut arguments: Vec<String> = ["ld", "-m", emulation, "-Bsymbolic", "-shared"]
        .into_iter()
        .chain(["-z", "now", "-z", "relro", "-o", IMAGE])
        .map(str::to_owned)
        .collect();
    for (number, object) in objects.into_iter().enumerate() {
        let name = format!("object-{number}.o");
        files.all().insert(name.clone().into(), Arc::new(object));
        arguments.push(name);
    }
    linked(&files, &arguments).map_err(|error| failed("linking", format!("{error:?}")))?;
    let image = files.all().remove(Path::new(IMAGE));
    image.map(Arc::unwrap_or_clone).ok_or_else(|| failed("linking", "no image came of it"))
}

fn linked(files: &Files, arguments: &[String]) -> error::Result {
    let mut parsed = Args::new(|| arguments.iter().map(String::as_str))?;
    parsed.parse(|| arguments.iter().map(String::as_str))?;
    Linker::with_file_system(files.clone()).run(&parsed)?;
    Ok(())
}

/// All files that the linker sees, by their names.
#[derive(Clone, Default)]
struct Files(Arc<Mutex<HashMap<PathBuf, Arc<Vec<u8>>>>>);

impl Files {
    fn all(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Read(Arc<Vec<u8>>);

impl InputFileData for Read {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Written {
    files: Files,
    name: PathBuf,
    bytes: Vec<u8>,
}

impl OutputFileData for Written {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn finish(self) -> error::Result {
        self.files.all().insert(self.name, Arc::new(self.bytes));
        Ok(())
    }
}

impl FileSystem for Files {
    type Input = Read;
    type Output = Written;

    fn open_input(&self, name: &Path, _: bool) -> error::Result<(Read, Option<Arc<File>>)> {
        let found = self.all().get(name).cloned().ok_or_else(absent)?;
        Ok((Read(found), None))
    }

    fn file_type(&self, name: &Path) -> error::Result<FileType> {
        Ok(self.all().get(name).map(|_| FileType::File).ok_or_else(absent)?)
    }

    fn canonicalize(&self, name: &Path) -> error::Result<PathBuf> {
        Ok(name.to_path_buf())
    }

    fn remove_file(&self, name: &Path) -> error::Result<()> {
        self.all().remove(name);
        Ok(())
    }

    fn rename_file(&self, from: &Path, to: &Path) -> error::Result<()> {
        let file = self.all().remove(from).ok_or_else(absent)?;
        self.all().insert(to.to_path_buf(), file);
        Ok(())
    }

    fn create_output(&self, name: Arc<Path>, options: OutputOptions) -> error::Result<Written> {
        let bytes = vec![0; usize::try_from(options.size)?];
        Ok(Written { files: self.clone(), name: name.to_path_buf(), bytes })
    }

    fn write_auxiliary(&self, name: &Path, bytes: &[u8]) -> error::Result {
        self.all().insert(name.to_path_buf(), Arc::new(bytes.to_vec()));
        Ok(())
    }
}

fn absent() -> io::Error {
    io::ErrorKind::NotFound.into()
}
