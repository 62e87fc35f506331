//! How far a job has come, in a few words for whoever waits for its next step.
//! Pure.

use crate::cluster::plan::PlannedContainer;
use crate::cluster::status::PodView;
use crate::cluster::status::evidence::Evidence;

/// What a job waits for whose next container has not started.
pub(super) fn before(
    next: &PlannedContainer,
    view: Option<&PodView>,
    evidence: Option<&Evidence>,
) -> String {
    let Some(view) = view else {
        return "Waiting for the pod.".to_string();
    };
    if let Some(image) = evidence.and_then(|evidence| evidence.pulling(&next.name)) {
        return format!("Pulling image {image}.");
    }
    let has_sandbox = view.sandbox_ready != Some(false) && !view.containers.is_empty();
    if !view.has_node {
        "Waiting for a node.".to_string()
    } else if !has_sandbox {
        "The node prepares the pod.".to_string()
    } else {
        format!("Waiting for {} to start.", next.log_key)
    }
}

/// What is said when it has started.
pub(super) fn running(container: &PlannedContainer) -> String {
    format!("{} runs.", container.log_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::status::evidence::EventView;
    use crate::cluster::status::{ContainerState, ContainerView};

    fn container() -> PlannedContainer {
        PlannedContainer {
            name: "step-a".to_string(),
            log_key: "step.a".to_string(),
            command: None,
        }
    }

    fn events(reasons: &[(&str, &str)]) -> Evidence {
        let event = |(container, message): &(&str, &str)| EventView {
            reason: String::new(),
            message: (*message).to_string(),
            container: Some((*container).to_string()),
            time: None,
        };
        Evidence::new(Some(reasons.iter().map(event).collect()), None)
    }

    #[test]
    fn every_stage_before_the_start_is_named() {
        let mut view = PodView::unseen("p", "u");
        let stage = |view: &PodView| before(&container(), Some(view), None);
        assert_eq!(before(&container(), None, None), "Waiting for the pod.");
        assert_eq!(stage(&view), "Waiting for a node.");
        view.has_node = true;
        assert_eq!(stage(&view), "The node prepares the pod.");
        view.containers.push(ContainerView {
            name: "step-a".to_string(),
            image: String::new(),
            memory_limit: None,
            state: ContainerState::Waiting {
                reason: String::new(),
                message: String::new(),
            },
            by_itself: true,
        });
        view.sandbox_ready = Some(false);
        assert_eq!(stage(&view), "The node prepares the pod.");
        view.sandbox_ready = Some(true);
        assert_eq!(stage(&view), "Waiting for step.a to start.");
    }

    #[test]
    fn a_pull_is_told_while_it_lasts() {
        let mut view = PodView::unseen("p", "u");
        view.has_node = true;
        let stage = |evidence: Evidence| before(&container(), Some(&view), Some(&evidence));
        let pulling = ("step-a", "Pulling image \"a/b:1\"");
        let other = ("step-b", "Created container: step-b");
        assert_eq!(stage(events(&[pulling, other])), "Pulling image a/b:1.");
        let pulled = ("step-a", "Successfully pulled image \"a/b:1\" in 3s");
        assert_eq!(
            stage(events(&[pulling, pulled])),
            "The node prepares the pod."
        );
    }
}
