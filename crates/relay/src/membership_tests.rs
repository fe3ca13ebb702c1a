//! Membership against a model that is too simple to be wrong.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Enter { session: u64, max: usize },
    Leave(u64),
    Begin,
    Publish { age: u64 },
    Close { age: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u64..12, 0_usize..10).prop_map(|(session, max)| Step::Enter { session, max }),
        6 => (0_u64..12).prop_map(Step::Leave),
        2 => Just(Step::Begin),
        6 => (0_u64..3).prop_map(|age| Step::Publish { age }),
        1 => (0_u64..3).prop_map(|age| Step::Close { age }),
    ]
}

proptest! {
    #[test]
    fn a_room_is_a_list_of_members_and_two_counters(steps in prop::collection::vec(step(), 1..150)) {
        let mut room = Membership::new();
        let mut model: Vec<(SessionId, usize)> = Vec::new();
        let (mut revision, mut generation, mut closed) = (0, 0_u64, false);
        // Every revision ever published, with its members: one revision is one set.
        let mut published: HashMap<u64, Vec<(SessionId, usize)>> = HashMap::new();
        for (handle, step) in steps.into_iter().enumerate() {
            match step {
                Step::Enter { session, max } => {
                    let session = SessionId(session);
                    let expected = if closed {
                        Err(EnterError::Closed)
                    } else if model.iter().any(|(member, _)| *member == session) {
                        Err(EnterError::Present)
                    } else if model.len() >= max {
                        Err(EnterError::Full)
                    } else {
                        model.push((session, handle));
                        model.sort();
                        revision += 1;
                        Ok(revision)
                    };
                    prop_assert_eq!(room.enter(session, handle, max), expected);
                }
                Step::Leave(session) => {
                    let before = model.len();
                    model.retain(|(member, _)| *member != SessionId(session));
                    let left = model.len() < before;
                    revision += u64::from(left);
                    prop_assert_eq!(room.leave(SessionId(session)), left.then_some(revision));
                }
                Step::Begin => {
                    generation += 1;
                    prop_assert_eq!(room.begin_generation(), generation);
                }
                Step::Publish { age } => {
                    let asking = generation.saturating_sub(age);
                    let snapshot = room.snapshot(asking);
                    prop_assert_eq!(room.may_publish(asking), snapshot.is_some());
                    prop_assert_eq!(snapshot.is_some(), asking == generation, "only the latest generation publishes");
                    if let Some((at, members)) = snapshot {
                        prop_assert_eq!(at, revision);
                        prop_assert_eq!(&members, &model);
                        prop_assert_eq!(published.entry(at).or_insert_with(|| members.clone()), &members);
                    }
                }
                Step::Close { age } => {
                    let asking = generation.saturating_sub(age);
                    closed |= asking == generation && model.is_empty();
                    prop_assert_eq!(room.close_if_empty(asking), closed);
                }
            }
            prop_assert_eq!((room.len(), room.is_empty(), room.revision()), (model.len(), model.is_empty(), revision));
            prop_assert_eq!(room.is_closed(), closed);
            prop_assert_eq!(room.iter().map(|(session, handle)| (session, *handle)).collect::<Vec<_>>(), model.clone());
            for session in 0..12 {
                let expected = model.iter().find(|(member, _)| *member == SessionId(session)).map(|(_, handle)| handle);
                prop_assert_eq!(room.get(SessionId(session)), expected);
            }
        }
    }
}
