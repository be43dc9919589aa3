//! The harness, the host's limits and hostile bytes, natively.

use edge_nri::testing::Harness;
use edge_nri::{bail, conf, host, methods, state, ConfigureRequestView, Container};
use edge_nri::{ContainerAdjustment, CreateContainerRequest, CreateContainerRequestView};
use edge_nri::{CreateContainerResponse, LinuxContainerAdjustment, LinuxMemory, LinuxResources};
use edge_nri::{Plugin, PodSandbox, PostCreateContainerRequest, PostCreateContainerRequestView};
use edge_nri::{Result, SynchronizeRequest};

#[derive(Default)]
struct Limiter {
    memory: Option<u64>,
}

impl Plugin for Limiter {
    fn configure(&mut self, request: ConfigureRequestView<'_>) -> Result<()> {
        for line in conf::lines(request.config()) {
            let mut words = line.words();
            match (
                words.next(),
                words.next().and_then(conf::size),
                words.next(),
            ) {
                (Some("memory"), Some(bytes), None) => self.memory = Some(bytes),
                _ => return Err(line.error("expected \"memory SIZE\", such as \"memory 64Mi\"")),
            }
        }
        Ok(())
    }

    fn create_container(
        &mut self,
        request: CreateContainerRequestView<'_>,
    ) -> Result<CreateContainerResponse> {
        if request.container().name().is_empty() {
            bail!("a container without a name");
        }
        let Some(limit) = self.memory else {
            return Ok(CreateContainerResponse::new());
        };
        let mut resources = LinuxResources::new();
        resources.set_memory(LinuxMemory::new().set_limit(i64::try_from(limit)?));
        let mut adjust = ContainerAdjustment::new();
        adjust.set_linux(LinuxContainerAdjustment::new().set_resources(&resources));
        edge_nri::debug!("limited {}", request.container().name());
        Ok(adjust.into())
    }

    fn post_create_container(&mut self, request: PostCreateContainerRequestView<'_>) -> Result<()> {
        let key = request.container().name();
        let count = state::get(key)?.map_or(0, |value| value.len());
        state::put(key, &vec![b'x'; count + 30_000])?;
        host::report("kept", key.as_bytes(), "text/plain")
    }
}

edge_nri::plugin!(Limiter: create_container, post_create_container);

fn request(name: &str) -> CreateContainerRequest {
    let mut request = CreateContainerRequest::new();
    request.set_container(Container::new().set_name(name));
    request.set_pod(PodSandbox::new().set_id("p").add_label("app", "web"));
    request
}

#[test]
fn a_setting_becomes_an_adjustment() {
    let mut harness = Harness::<Limiter>::new();
    harness.configure("# of each\nmemory 64Mi").unwrap();
    let reply = harness.create_container(&request("main")).unwrap();
    let memory = reply.view().adjust().linux().resources().memory();
    assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), None));
    assert_eq!(harness.lines(), ["debug: limited main"]);
    assert!(harness.lines().is_empty());
}

#[test]
fn errors_are_texts_with_their_line() {
    let mut harness = Harness::<Limiter>::new();
    let said = harness.configure("\nmemory much").unwrap_err();
    assert!(said.starts_with("line 2: expected"), "{said}");
    let said = harness.create_container(&request("")).unwrap_err();
    assert_eq!(said, "a container without a name");
    harness.configure("memory 9223372036854775807").unwrap();
    harness.create_container(&request("main")).unwrap();
}

#[test]
fn the_state_outlives_an_instance_and_has_its_limit() {
    let mut harness = Harness::<Limiter>::new();
    let mut request = PostCreateContainerRequest::new();
    request.set_container(Container::new().set_name("main"));
    harness.post_create_container(&request).unwrap();
    harness.restart();
    harness.post_create_container(&request).unwrap();
    let said = harness.post_create_container(&request).unwrap_err();
    assert!(said.contains("65536"), "{said}");
    assert_eq!(harness.state("main").unwrap().len(), 60_000); // as it was before
    assert_eq!(harness.reports().len(), 2);
    assert!(host::report("large", &[0; 20_000], "").is_err());
}

#[test]
fn what_a_plugin_does_not_answer_changes_nothing() {
    let mut harness = Harness::<Limiter>::new();
    let reply = harness
        .synchronize(SynchronizeRequest::new().set_more(true))
        .unwrap();
    assert!(reply.view().more());
    assert_eq!(reply.view().update().count(), 0);
    harness.shutdown().unwrap();
}

#[test]
fn damaged_requests_are_answered_or_refused() {
    let whole = request("main");
    let whole = whole.buf().bytes();
    for at in 0..whole.len() {
        for byte in 0..=255 {
            let mut damaged = whole.to_vec();
            damaged[at] = byte;
            for request in [&damaged[..], &damaged[..at]] {
                let mut harness = Harness::<Limiter>::new();
                if let Err(said) = harness.call(methods::create_container, request) {
                    assert!(
                        ["malformed message", "a container without a name"].contains(&&said[..])
                    );
                }
            }
        }
    }
}
