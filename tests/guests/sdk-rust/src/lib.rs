//! Lays the SDK's parts open to the tests, with the exports of ../sdk.c.

use edge_nri::wire::{Buf, Content, Fault, Fields};
use edge_nri::{bail, conf, head, state, update_containers, warn};
use edge_nri::{ContainerAdjustment, ContainerUpdate, CreateContainerRequestView};
use edge_nri::{CreateContainerResponse, LinuxContainerAdjustment, LinuxContainerUpdate};
use edge_nri::{LinuxDevice, LinuxMemory, LinuxResources, Plugin, Result, UpdateContainersRequest};
use edge_nri::{ValidateContainerAdjustmentRequestView, ValidateContainerAdjustmentResponse};

#[derive(Default)]
struct Lab {
    calls: u32,
}

impl Plugin for Lab {
    fn configure(&mut self, _: edge_nri::ConfigureRequestView<'_>) -> Result<()> {
        Ok(())
    }

    /// A reply that tells what was read: one field of each kind.
    fn create_container(
        &mut self,
        request: CreateContainerRequestView<'_>,
    ) -> Result<CreateContainerResponse> {
        let (pod, container) = (request.pod(), request.container());
        let linux = container.linux();
        let memory = linux.resources().memory();
        let mut adjust = ContainerAdjustment::new();
        for (key, value) in pod.labels().iter() {
            adjust.add_annotation(key, value);
        }
        adjust.add_env("name", container.name());
        adjust.add_env("state", &container.state().0.to_string());
        adjust.add_env("exit", &container.exit_code().to_string());
        adjust.add_env("created", &container.created_at().to_string());
        adjust.add_env("limit", &format!("{:?}", memory.limit()));
        adjust.add_env("oom", &format!("{:?}", memory.disable_oom_killer()));
        adjust.add_env("linux", &container.has_linux().to_string());
        let gids: Vec<u32> = container.user().additional_gids().collect();
        adjust.add_env("gids", &format!("{gids:?}"));
        for mount in container.mounts() {
            adjust.add_mount(&mount.into());
        }
        for arg in container.args() {
            adjust.add_arg(arg);
        }
        let mut changed = LinuxContainerAdjustment::new();
        for device in linux.devices() {
            let mut copy = LinuxDevice::new();
            copy.set_path(device.path()).set_type(device.r#type());
            copy.set_major(device.major()).set_minor(device.minor());
            if let Some(mode) = device.file_mode() {
                copy.set_file_mode(mode);
            }
            changed.add_device(&copy);
        }
        for (key, value) in linux.net_devices().iter() {
            changed.add_net_device(key, &value.into());
        }
        adjust.set_linux(&changed);
        Ok(adjust.into())
    }

    /// Everything that can be asked of a host.
    fn post_create_container(
        &mut self,
        request: edge_nri::PostCreateContainerRequestView<'_>,
    ) -> Result<()> {
        self.calls += 1;
        let before = state::get("calls")?;
        warn!("call {}, before {before:?}", self.calls);
        state::put("calls", self.calls.to_string().as_bytes())?;
        edge_nri::report("seen", request.pod().name().as_bytes(), "text/plain")?;
        let mut resources = LinuxResources::new();
        resources.set_memory(LinuxMemory::new().set_limit(64 << 20));
        let mut update = ContainerUpdate::new();
        update.set_container_id(request.container().id());
        update.set_linux(LinuxContainerUpdate::new().set_resources(&resources));
        update_containers(&UpdateContainersRequest::from(update))?;
        if self.calls > 1 {
            state::remove("calls")?;
            bail!("call {} of {}", self.calls, request.container().id());
        }
        Ok(())
    }

    fn validate_container_adjustment(
        &mut self,
        request: ValidateContainerAdjustmentRequestView<'_>,
    ) -> Result<ValidateContainerAdjustmentResponse> {
        let owners = request.owners().owners();
        let Some(fields) = owners.get(request.container().id()) else {
            return Ok(ValidateContainerAdjustmentResponse::new());
        };
        let owner = fields
            .simple()
            .get(edge_nri::Field::Args.0)
            .unwrap_or("nobody");
        Ok(ValidateContainerAdjustmentResponse::rejecting(
            format_args!("args: {owner}"),
        ))
    }

    /// What an author can do wrong.
    fn stop_pod_sandbox(&mut self, request: edge_nri::StopPodSandboxRequestView<'_>) -> Result<()> {
        panic!("no plan for {}", request.pod().name());
    }
}

edge_nri::plugin!(Lab: create_container, post_create_container, shutdown, stop_pod_sandbox, synchronize, validate_container_adjustment);

macro_rules! export {
    ($($name:ident)*) => { $(
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            static LAB: edge_nri::guest::Slot<Lab> = edge_nri::guest::Slot::new();

            #[export_name = concat!("plugin_", stringify!($name))]
            extern "C" fn export(at: usize, size: u32) -> u64 {
                LAB.serve(at, size, |_, request| $name(Request(request)))
            }
        };
    )* };
}

export! { transcode_flat transcode_deep label glob amount lines pieces exhaust }

struct Request<'a>(edge_nri::view::View<'a>);

impl<'a> Request<'a> {
    /// KeyValue's
    fn key(&self) -> &'a str {
        self.0.one(1)
    }

    fn value(&self) -> &'a str {
        self.0.one(2)
    }
}

/// Reads everything and writes it again; `depth` levels of messages are opened.
fn transcode(fields: Fields<'_>, out: &mut Buf, depth: u32) {
    for (number, content) in fields {
        match content {
            Content::Bytes(bytes) if depth > 0 && !bytes.is_empty() && is_message(bytes) => {
                let (mut inner, fault) = (Buf::new(), Fault::new());
                transcode(Fields::new(bytes, &fault), &mut inner, depth - 1);
                out.put_message(number, &inner);
            }
            Content::Bytes(bytes) => out.put_bytes(number, bytes),
            Content::Varint(value) => out.put_number(number, value),
            Content::Fixed64(value) => {
                out.put_tag(number, 1);
                out.put(&value.to_le_bytes());
            }
            Content::Fixed32(value) => {
                out.put_tag(number, 5);
                out.put(&value.to_le_bytes());
            }
        }
    }
}

/// Whether the bytes could be a message; they may as well be text.
fn is_message(bytes: &[u8]) -> bool {
    let fault = Fault::new();
    Fields::new(bytes, &fault).for_each(drop);
    !fault.is_set()
}

fn transcode_flat(request: Request<'_>) -> Result<Buf> {
    let mut out = Buf::new();
    transcode(request.0.fields(), &mut out, 0);
    Ok(out)
}

fn transcode_deep(request: Request<'_>) -> Result<Buf> {
    let mut out = Buf::new();
    transcode(request.0.fields(), &mut out, 12);
    Ok(out)
}

/// LogRequest's shape for the answer of everything below: {text=1, number=2}.
fn answer(text: &str, found: bool) -> Result<Buf> {
    let mut out = Buf::new();
    if !text.is_empty() {
        out.put_bytes(1, text.as_bytes());
    }
    if found {
        out.put_number(2, 1);
    }
    Ok(out)
}

/// KeyValue{key, value: a Container}: the label under that key.
fn label(request: Request<'_>) -> Result<Buf> {
    let container: edge_nri::ContainerView = request.0.one(2);
    let found = container.labels().get(request.key());
    answer(found.unwrap_or_default(), found.is_some())
}

fn glob(request: Request<'_>) -> Result<Buf> {
    answer("", conf::glob(request.key(), request.value()))
}

/// KeyValue{key: a unit, value: text}: the number it stands for, in decimal.
fn amount(request: Request<'_>) -> Result<Buf> {
    let number = match request.key() {
        "size" => conf::size(request.value()),
        "cpu" => conf::cpu(request.value()),
        _ => conf::uint(request.value()),
    };
    let text = number.map(|number| number.to_string());
    answer(&text.clone().unwrap_or_default(), text.is_some())
}

/// KeyValue{value}: its lines that say something, as "number:line|".
fn lines(request: Request<'_>) -> Result<Buf> {
    let said: String = conf::lines(request.value())
        .map(|line| format!("{}:{}|", line.number, line.text))
        .collect();
    answer(&said, true)
}

fn pieces(request: Request<'_>) -> Result<Buf> {
    let text = core::str::from_utf8(request.0.bytes()).unwrap_or_default();
    let said = format!("text view -1 2 {} {} {}", i64::MIN, u64::MAX, head(text, 5));
    answer(&said, true)
}

/// Asks for more memory than there is.
fn exhaust(_: Request<'_>) -> Result<Buf> {
    let mut out = Buf::new();
    for _ in 0..1 << 16 {
        out.put(&[0; 1 << 10]);
    }
    Ok(out)
}
