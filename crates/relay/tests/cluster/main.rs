//! Nodes on a bus that loses, repeats, delays and cuts, and that come and go themselves, agree on who is where as soon as they
//! hear each other again; and whatever is said to them, they keep within their bounds.

#![allow(clippy::unwrap_used)]

mod checks;
mod cost;
mod network;
mod nonsense;
mod words;
mod world;

use network::Weather;
use proptest::prelude::*;
use world::{Act, HEARTBEAT, LOST_AFTER, MS, Setup, World};

/// After everything works again, views are complete within this: a heartbeat tells what is missing; a request that was lost is
/// repeated within three seconds; the way there and back, twice.
const COMPLETE: u64 = HEARTBEAT + 3_000 * MS + 200 * MS;
/// Who is gone is forgotten within this: its last words may still be on their way.
const FORGOTTEN: u64 = LOST_AFTER + 500 * MS;

fn weather(delay: u64) -> impl Strategy<Value = Weather> {
    (1..delay, prop_oneof![Just(0_u8), 0_u8..60], prop_oneof![Just(0_u8), 0_u8..40]).prop_map(
        |(delay, dropped_percent, repeated_percent)| Weather { delay: delay * MS, dropped_percent, repeated_percent },
    )
}

fn acts(delay: u64) -> impl Strategy<Value = Vec<(u64, Act)>> {
    let at = 0_usize..5;
    let act = prop_oneof![
        12 => (at.clone(), 0_u8..4).prop_map(|(at, room)| Act::Join { at, room }),
        6 => (at.clone(), 0_usize..100).prop_map(|(at, pick)| Act::Leave { at, pick }),
        1 => (at.clone(), 2_usize..1_300).prop_map(|(at, members)| Act::Crowd { at, members }),
        1 => at.clone().prop_map(|at| Act::Disperse { at }),
        2 => (at.clone(), at.clone()).prop_map(|(from, to)| Act::Cut { from, to }),
        1 => at.clone().prop_map(|at| Act::CutOff { at }),
        2 => Just(Act::Mend),
        2 => at.clone().prop_map(|at| Act::BusDown { at }),
        3 => at.clone().prop_map(|at| Act::BusUp { at }),
        2 => at.clone().prop_map(|at| Act::Kill { at }),
        4 => at.clone().prop_map(|at| Act::Start { at }),
        1 => at.clone().prop_map(|at| Act::Quit { at }),
        1 => (at.clone(), any::<bool>()).prop_map(|(at, on)| Act::Drain { at, on }),
        1 => at.clone().prop_map(|at| Act::Freeze { at }),
        2 => at.prop_map(|at| Act::Thaw { at }),
        2 => weather(delay).prop_map(Act::Weather),
    ];
    let wait = prop_oneof![3 => 0_u64..40, 3 => 0_u64..600, 1 => 0_u64..7_000];
    prop::collection::vec((wait, act), 1..60)
}

fn setup(ordered: bool, delay: u64) -> impl Strategy<Value = Setup> {
    // Names collide now and then, and so do dialects.
    let place = |at: u8| (prop_oneof![5 => Just(at), 1 => Just(0_u8)], prop::bool::weighted(0.15));
    let places = (2_usize..=5, (place(0), place(1), place(2), place(3), place(4)))
        .prop_map(|(places, (a, b, c, d, e))| [a, b, c, d, e][..places].to_vec());
    (places, weather(delay), any::<u64>()).prop_map(move |(places, weather, seed)| Setup {
        places,
        ordered,
        weather,
        seed,
    })
}

fn run(setup: Setup, acts: &[(u64, Act)]) {
    let mut world = World::new(setup);
    for (wait, act) in acts {
        world.run_for(wait * MS);
        world.act(act);
    }
    world.heal();
    world.run_for(COMPLETE);
    checks::all_are_known(&world);
    world.run_for(FORGOTTEN.saturating_sub(COMPLETE));
    checks::agreed(&world);
    // And it stays so, in silence.
    world.run_for(12_000 * MS);
    checks::agreed(&world);
    checks::silence(&world);
}

/// So many runs unless told otherwise: what was found is kept as a test of its own, not as a seed.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { cases };
    ProptestConfig { cases, max_shrink_time: 60_000, failure_persistence: None, ..default }
}

proptest! {
    #![proptest_config(config(100))]

    #[test]
    fn after_it_heals_all_views_are_the_truth(setup in setup(true, 200), acts in acts(200)) {
        run(setup, &acts);
    }

    #[test]
    fn even_where_nothing_comes_in_order(setup in setup(false, 400), acts in acts(400)) {
        run(setup, &acts);
    }
}
