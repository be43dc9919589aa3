//! Marks each container with the label "app" of its pod: an annotation and a variable.

use edge_nri::{bail, head, info, ConfigureRequestView, ContainerAdjustment};
use edge_nri::{CreateContainerRequestView, CreateContainerResponse, Plugin, Result};

#[derive(Default)]
struct Marker;

impl Plugin for Marker {
    fn configure(&mut self, request: ConfigureRequestView<'_>) -> Result<()> {
        let config = request.config();
        if !config.is_empty() {
            bail!("this plugin has no settings, not even {}", head(config, 40));
        }
        Ok(())
    }

    fn create_container(
        &mut self,
        request: CreateContainerRequestView<'_>,
    ) -> Result<CreateContainerResponse> {
        let Some(app) = request.pod().labels().get("app") else {
            return Ok(CreateContainerResponse::new()); // nothing to change
        };
        let mut adjust = ContainerAdjustment::new();
        adjust.add_annotation("PLUGIN_NAME.example/app", app);
        adjust.add_env("APP", app);
        info!("marked {} of {app}", request.container().name());
        Ok(adjust.into())
    }
}

edge_nri::plugin!(Marker: create_container);

#[cfg(test)]
mod tests {
    use super::*;
    use edge_nri::testing::Harness;
    use edge_nri::{Container, CreateContainerRequest, PodSandbox};

    #[test]
    fn a_container_of_a_pod_with_the_label_is_marked() {
        let mut request = CreateContainerRequest::new();
        request.set_pod(PodSandbox::new().add_label("app", "web"));
        request.set_container(Container::new().set_name("main"));
        let mut marker = Harness::<Marker>::new();
        let reply = marker.create_container(&request).unwrap();
        let annotations = reply.view().adjust().annotations();
        assert_eq!(annotations.get("PLUGIN_NAME.example/app"), Some("web"));
        assert_eq!(marker.lines(), ["info: marked main of web"]);
    }

    #[test]
    fn a_setting_is_refused() {
        let said = Harness::<Marker>::new().configure("loud").unwrap_err();
        assert_eq!(said, "this plugin has no settings, not even loud");
    }
}
