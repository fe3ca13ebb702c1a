//! What a right specification is: checked for a whole tree before anything of it starts.

use std::collections::HashSet;

use crate::path::ActorPath;
use crate::spec::{AutoShutdown, ChildSpec, Restart, Strategy, SupervisorSpec};

/// Supervisors below one another. A specification that contains itself would have no end.
pub(crate) const MAX_DEPTH: usize = 64;

/// What is wrong with a specification.
///
/// Some of OTP's errors cannot be written here: an unknown strategy, restart type or child type, a missing id or start
/// function, fixed children of a simple_one_for_one supervisor. Intensity and period are the policy's
/// ([`PolicyError`](crate::PolicyError)).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SpecError {
    /// Two siblings share an id or a name.
    #[error("two children share the id or the name of `{0}`")]
    Duplicate(String),
    /// An id or a name is empty.
    #[error("child `{0}` has an empty id or name")]
    EmptyName(String),
    /// An id or a name holds a control character, such as a line's end; it is shown escaped.
    #[error("child `{0}` has a control character in its id or name")]
    ControlCharacter(String),
    /// A permanent child never ends for good, so its end can mean nothing.
    #[error("child `{0}` is significant and permanent; make it transient or temporary")]
    SignificantPermanent(String),
    /// A significant child under a supervisor that never shuts down for it.
    #[error("child `{0}` is significant, but its supervisor's auto_shutdown is never")]
    SignificantWithoutAutoShutdown(String),
    /// A dynamic supervisor that would end with children that come and go; as in OTP.
    #[error("a dynamic supervisor does not end with its children; its auto_shutdown must be never")]
    DynamicAutoShutdown,
    /// More than 64 supervisors below one another: it probably contains itself.
    #[error("more than {MAX_DEPTH} supervisors below one another")]
    TooDeep,
    /// What makes the specification panicked; the text is the panic's message.
    #[error("making the specification panicked: {0}")]
    Panicked(String),
    /// The specification of a supervisor below the child is wrong.
    #[error("supervisor `{path}`: {error}")]
    Below {
        /// That supervisor.
        path: ActorPath,
        /// What is wrong.
        error: Box<SpecError>,
    },
}

/// A wrong specification somewhere in a tree.
#[derive(Debug, PartialEq)]
pub(crate) struct Fault {
    /// The supervisor whose specification it is.
    pub(crate) path: ActorPath,
    pub(crate) error: SpecError,
}

impl Fault {
    /// As seen from the supervisor at `path`.
    pub(crate) fn seen_from(self, path: &ActorPath) -> SpecError {
        if self.path == *path { self.error } else { SpecError::Below { path: self.path, error: Box::new(self.error) } }
    }
}

impl ChildSpec {
    /// Checks the child itself.
    pub(crate) fn check(&self, auto_shutdown: AutoShutdown) -> Result<(), SpecError> {
        let rules = &self.rules;
        if rules.name.is_empty() || rules.id.is_empty() {
            return Err(SpecError::EmptyName(rules.id.escape_debug().to_string()));
        }
        if rules.id.chars().chain(rules.name.chars()).any(char::is_control) {
            return Err(SpecError::ControlCharacter(rules.id.escape_debug().to_string()));
        }
        if rules.significant && rules.restart == Restart::Permanent {
            return Err(SpecError::SignificantPermanent(rules.id.to_string()));
        }
        if rules.significant && auto_shutdown == AutoShutdown::Never {
            return Err(SpecError::SignificantWithoutAutoShutdown(rules.id.to_string()));
        }
        Ok(())
    }

    /// Checks everything below the child, which is one of the supervisor at `path`.
    pub(crate) fn check_below(&self, path: &ActorPath) -> Result<(), Fault> {
        self.starter.prepare(&path.child(&self.rules.name))
    }
}

impl SupervisorSpec {
    /// Checks this supervisor's own specification.
    fn check(&self) -> Result<(), SpecError> {
        if self.strategy == Strategy::SimpleOneForOne && self.auto_shutdown != AutoShutdown::Never {
            return Err(SpecError::DynamicAutoShutdown);
        }
        let (mut ids, mut names) = (HashSet::new(), HashSet::new());
        for child in &self.children {
            child.check(self.auto_shutdown)?;
            if !ids.insert(&child.rules.id) || !names.insert(&child.rules.name) {
                return Err(SpecError::Duplicate(child.rules.id.to_string()));
            }
        }
        Ok(())
    }

    /// Checks the specification and all below it. Those below are made for it, once: each is kept for the incarnation that
    /// is about to start. The children of a dynamic supervisor are not known before it starts; it checks them then.
    pub(crate) fn check_all(&self, path: &ActorPath) -> Result<(), Fault> {
        self.check().map_err(|error| Fault { path: path.clone(), error })?;
        self.children.iter().try_for_each(|child| child.check_below(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(id: &str) -> ChildSpec {
        ChildSpec::supervisor(id, || SupervisorSpec::one_for_one(Vec::new()))
    }

    fn check(spec: &SupervisorSpec) -> Result<(), SpecError> {
        let root = ActorPath::root("root");
        spec.check_all(&root).map_err(|fault| fault.seen_from(&root))
    }

    #[test]
    fn a_broken_specification_is_refused_with_its_reason() {
        let check = |children| check(&SupervisorSpec::one_for_one(children));
        let name = |id: &str| id.to_owned();
        assert_eq!(check(vec![child("a"), child("b")]), Ok(()));
        assert_eq!(check(vec![child("a"), child("a")]), Err(SpecError::Duplicate(name("a"))));
        assert_eq!(check(vec![child("a"), child("b").named("a")]), Err(SpecError::Duplicate(name("b"))));
        assert_eq!(check(vec![child("")]), Err(SpecError::EmptyName(name(""))));
        assert_eq!(check(vec![child("a").named("")]), Err(SpecError::EmptyName(name("a"))));
        assert_eq!(check(vec![child("a\nb")]), Err(SpecError::ControlCharacter(name("a\\nb"))));
        assert_eq!(check(vec![child("a").named("\0")]), Err(SpecError::ControlCharacter(name("a"))));
        assert_eq!(check(vec![child("a").significant()]), Err(SpecError::SignificantPermanent(name("a"))));
        let transient = child("a").significant().restart(Restart::Transient);
        assert_eq!(check(vec![transient]), Err(SpecError::SignificantWithoutAutoShutdown(name("a"))));
    }

    #[test]
    fn a_significant_child_is_right_under_auto_shutdown() {
        let transient = child("a").significant().restart(Restart::Transient);
        assert_eq!(check(&SupervisorSpec::one_for_one(vec![transient]).auto_shutdown(AutoShutdown::Any)), Ok(()));
    }

    #[test]
    fn a_dynamic_supervisor_does_not_end_with_its_children() {
        let dynamic = || SupervisorSpec::dynamic(Vec::new, &crate::SupervisorSlot::new());
        assert_eq!(check(&dynamic()), Ok(()));
        assert_eq!(check(&dynamic().auto_shutdown(AutoShutdown::All)), Err(SpecError::DynamicAutoShutdown));
    }

    #[test]
    fn a_specification_that_contains_itself_is_refused() {
        fn endless() -> SupervisorSpec {
            SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("again", endless)])
        }
        let error = check(&endless()).unwrap_err();
        let SpecError::Below { path, error } = error else { panic!("{error}") };
        assert_eq!((path.segments().count(), *error), (MAX_DEPTH + 1, SpecError::TooDeep));
    }

    #[test]
    fn the_path_and_the_panic_of_a_nested_supervisor_are_told() {
        let inner = || SupervisorSpec::one_for_one(vec![ChildSpec::supervisor("inner", || panic!("no"))]);
        let spec = SupervisorSpec::one_for_one(vec![child("fine"), ChildSpec::supervisor("outer", inner)]);
        assert_eq!(
            check(&spec).unwrap_err().to_string(),
            "supervisor `outer/inner`: making the specification panicked: no"
        );
    }
}
