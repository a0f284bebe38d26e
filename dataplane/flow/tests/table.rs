//! What the table promises, alone and with several workers.

#![allow(clippy::unwrap_used)]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use octoplane_flow::{FlowError, FlowHandle, FlowRef, FlowTable, Hasher, Tuple};
use proptest::prelude::*;

fn tuple(n: u32) -> Tuple {
    Tuple::v4(0x0a00_0000 | n >> 8, 0x0a63_0000, n as u16, 80, 6, 0)
}

fn tuple6(n: u32) -> Tuple {
    Tuple::v6([0xfd00 << 48, n.into()], [0xfd00 << 48, 1 << 40], 1024, 80, 17, 0)
}

fn handle(capacity: u32) -> FlowHandle {
    FlowHandle::new(Arc::new(FlowTable::new(capacity).unwrap()), 0, 1).unwrap()
}

fn find(handle: &FlowHandle, tuple: &Tuple) -> Option<FlowRef> {
    handle.table().find(handle.table().hash(tuple), tuple)
}

/// Stores a connection that nobody translates.
fn insert(handle: &mut FlowHandle, tuple: &Tuple, value: u64) -> Result<FlowRef, FlowError> {
    handle.insert([tuple, &tuple.reverse()], [[value, 0, 0], [value, 1, 0]], 1)
}

#[test]
fn both_directions_are_found_and_lead_to_each_other() {
    let mut handle = handle(1000);
    for tuple in [tuple(7), tuple6(7)] {
        let flow = insert(&mut handle, &tuple, 5).unwrap();
        assert_eq!(find(&handle, &tuple), Some(flow));
        assert_eq!(find(&handle, &tuple.reverse()), Some(flow.other()));
        let [there, back] = [flow, flow.other()].map(|flow| handle.table().half(flow).unwrap());
        assert_eq!((there.tuple(), back.tuple()), (tuple, tuple.reverse()));
        assert_eq!(
            (there.word::<0>(), there.word::<1>(), back.word::<1>()),
            (5, 0, 1)
        );
        back.set_word::<2>(9);
        assert_eq!(handle.table().half(flow.other()).unwrap().word::<2>(), 9);
        assert!(flow.is_forward() && !flow.other().is_forward());
    }
    assert_eq!(handle.table().len(), 2);
}

#[test]
fn a_translated_connection_has_two_tuples_of_its_own() {
    let mut handle = handle(1000);
    let there = Tuple::v4(1, 100, 4000, 80, 6, 0);
    let back = Tuple::v4(7, 1, 8080, 4000, 6, 0);
    let flow = handle.insert([&there, &back], [[0; 3]; 2], 1).unwrap();
    assert_eq!(find(&handle, &there), Some(flow));
    assert_eq!(find(&handle, &back), Some(flow.other()));
    assert_eq!(find(&handle, &there.reverse()), None);
}

#[test]
fn a_tuple_belongs_to_one_connection() {
    let mut handle = handle(1000);
    let flow = insert(&mut handle, &tuple(1), 1).unwrap();
    assert_eq!(insert(&mut handle, &tuple(1), 2), Err(FlowError::Taken(flow)));
    assert_eq!(
        insert(&mut handle, &tuple(1).reverse(), 2),
        Err(FlowError::Taken(flow.other()))
    );
    let clash = handle.insert([&tuple(2), &tuple(1).reverse()], [[0; 3]; 2], 1);
    assert_eq!(clash, Err(FlowError::Taken(flow.other())));
    assert_eq!(find(&handle, &tuple(2)), None);
    assert_eq!(handle.table().len(), 1);
}

#[test]
fn zones_keep_equal_addresses_apart() {
    let mut handle = handle(1000);
    let a = Tuple::v4(1, 2, 3, 4, 6, 0);
    let b = Tuple::v4(1, 2, 3, 4, 6, 1);
    let (a, b) = (
        insert(&mut handle, &a, 1).unwrap(),
        insert(&mut handle, &b, 2).unwrap(),
    );
    assert_ne!(a.record(), b.record());
}

#[test]
fn the_table_holds_what_it_was_made_for_and_then_refuses() {
    for capacity in [64, 1000, 65_536] {
        let mut handle = handle(capacity);
        for n in 0..capacity {
            insert(&mut handle, &tuple(n), n.into())
                .unwrap_or_else(|error| panic!("{n} of {capacity}: {error}"));
        }
        assert_eq!(insert(&mut handle, &tuple(capacity), 0), Err(FlowError::Full));
        assert_eq!(handle.table().len(), capacity);
        // Everything that was there is still there.
        assert!((0..capacity).all(|n| find(&handle, &tuple(n)).is_some()));
        handle.remove(find(&handle, &tuple(3)).unwrap());
        handle.quiesce();
        insert(&mut handle, &tuple(capacity), 0).unwrap();
    }
}

/// However many come, each finds room, and what goes for it is old.
#[test]
fn old_ones_make_room_for_new_ones() {
    const CAPACITY: u32 = 4096;
    for workers in [1, 2, 7] {
        let table = Arc::new(FlowTable::new(CAPACITY).unwrap());
        let mut handles: Vec<_> = (0..workers)
            .map(|number| FlowHandle::new(table.clone(), number, workers).unwrap())
            .collect();
        let mut ended = 0;
        for n in 0..5 * CAPACITY {
            let handle = &mut handles[n as usize / 32 % workers];
            ended += handle.make_room(|half| half.word::<0>());
            insert(handle, &tuple(n), n.into()).unwrap_or_else(|error| panic!("{n}, {workers}: {error}"));
            let young = n.saturating_sub(CAPACITY / 8)..=n;
            assert!(n % 64 > 0 || young.into_iter().all(|n| find(handle, &tuple(n)).is_some()));
            if n % 32 == 31 {
                handles.iter_mut().for_each(FlowHandle::quiesce);
            }
        }
        // Room that is there is used.
        assert!(table.len() >= CAPACITY / 4 * 3 && table.len() <= CAPACITY);
        assert_eq!(ended as u32, 5 * CAPACITY - table.len());
    }
    // While there is room nothing ends.
    let mut handle = handle(CAPACITY);
    for n in 0..CAPACITY / 4 * 3 {
        assert_eq!(handle.make_room(|_| 0), 0);
        insert(&mut handle, &tuple(n), 0).unwrap();
    }
}

/// Nor is more ended than what can be waited for, while a worker holds on to everything.
#[test]
fn no_more_is_ended_than_makes_room() {
    let table = Arc::new(FlowTable::new(4096).unwrap());
    let mut handle = FlowHandle::new(table.clone(), 0, 2).unwrap();
    let _other = FlowHandle::new(table.clone(), 1, 2).unwrap();
    for n in 0..4096 {
        let _ = insert(&mut handle, &tuple(n), n.into());
    }
    let ended: usize = (0..10_000)
        .map(|_| handle.make_room(|half| half.word::<0>()))
        .sum();
    assert!((1..=512).contains(&ended), "{ended}");
    assert_eq!(table.len() as usize, 4096 - ended);
}

#[test]
fn a_record_is_not_used_again_while_a_worker_may_hold_on_to_it() {
    let table = Arc::new(FlowTable::new(64).unwrap());
    let mut first = FlowHandle::new(table.clone(), 0, 2).unwrap();
    let mut second = FlowHandle::new(table, 1, 2).unwrap();
    for n in 0..64 {
        insert(&mut first, &tuple(n), 0).unwrap();
    }
    let held = find(&second, &tuple(5)).unwrap();
    first.remove(held);
    first.quiesce();
    assert_eq!(insert(&mut first, &tuple(100), 0), Err(FlowError::Full));
    assert_eq!(second.table().half(held).unwrap().tuple(), tuple(5));
    second.quiesce();
    assert!(insert(&mut first, &tuple(100), 0).is_ok());
}

/// Two workers that take out the same connection give up one record, not two.
#[test]
fn a_connection_is_taken_out_once() {
    let table = Arc::new(FlowTable::new(64).unwrap());
    let mut first = FlowHandle::new(table.clone(), 0, 2).unwrap();
    let mut second = FlowHandle::new(table.clone(), 1, 2).unwrap();
    let flow = insert(&mut first, &tuple(1), 0).unwrap();
    assert!(first.remove(flow) && !second.remove(flow));
    assert!(table.is_empty());
    first.quiesce();
    second.quiesce();
    // Each record is used once.
    let all: HashSet<_> = (10..74)
        .map(|n| insert(&mut first, &tuple(n), 0).unwrap().record())
        .collect();
    assert_eq!(all.len(), 64);
}

#[test]
fn expiry_asks_when_the_time_has_come_and_ends_what_it_is_told_to() {
    let mut handle = handle(100);
    for n in 0..10 {
        let look = 10 + n;
        handle
            .insert([&tuple(n), &tuple(n).reverse()], [[0; 3]; 2], look)
            .unwrap();
    }
    let mut asked = Vec::new();
    let ended = handle.sweep(12, 1000, |table, flow| {
        let port = table.half(flow).unwrap().tuple().sport();
        asked.push(port);
        (port == 1).then_some(50)
    });
    asked.sort_unstable();
    assert_eq!((asked, ended), (vec![0, 1, 2], 2));
    assert_eq!(handle.table().len(), 8);
    assert_eq!(find(&handle, &tuple(0)), None);
    // Asked for out of turn, by anybody.
    handle.table().look_soon(find(&handle, &tuple(9)).unwrap());
    assert_eq!(handle.sweep(12, 1000, |_, _| None), 1);
    assert_eq!(handle.sweep(100, 1000, |_, _| None), 7);
    assert!(handle.table().is_empty() && handle.table().iter().next().is_none());
}

#[test]
fn anybody_can_end_a_connection() {
    let mut handle = handle(100);
    for n in 0..4 {
        handle
            .insert([&tuple(n), &tuple(n).reverse()], [[0; 3]; 2], 50)
            .unwrap();
    }
    let [first, second, third] = [0, 1, 2].map(|n| find(&handle, &tuple(n)).unwrap());
    let table = handle.shared();
    assert!(!table.end_soon(first, &tuple(1)), "another one's tuple");
    assert!(
        !table.end_soon(first, &tuple(0).reverse()),
        "the other direction's"
    );
    // Either direction names the connection.
    assert!(table.end_soon(first, &tuple(0)) && table.end_soon(second.other(), &tuple(1)));
    assert!(!table.end_soon(first, &tuple(0)), "it was asked for already");
    table.look_soon(first);
    assert!(!table.is_live(first) && !table.is_live(second) && table.is_live(third));
    assert_eq!(table.iter().count(), 2);
    // It goes on until expiry comes by, which does not ask.
    assert!(find(&handle, &tuple(0)).is_some());
    assert_eq!(handle.sweep(1, 1000, |_, _| panic!("asked")), 2);
    assert_eq!(find(&handle, &tuple(0)), None);
    assert!(!table.end_soon(first, &tuple(0)), "gone");
    // A time beyond all times is not the end.
    assert_eq!(handle.sweep(50, 1000, |_, _| Some(u32::MAX)), 0);
    assert_eq!((handle.sweep(60, 1000, |_, _| None), table.len()), (0, 2));
    assert!(table.is_live(third));
    assert_eq!(
        table.iter_from(third.record()).count() + table.iter().take_while(|it| *it < third).count(),
        2
    );
}

#[test]
fn each_worker_expires_its_part() {
    let table = Arc::new(FlowTable::new(90).unwrap());
    let mut handles: Vec<_> = (0..3)
        .map(|n| FlowHandle::new(table.clone(), n, 3).unwrap())
        .collect();
    for n in 0..90 {
        insert(&mut handles[0], &tuple(n), 0).unwrap();
    }
    let ended: Vec<_> = handles
        .iter_mut()
        .map(|handle| handle.sweep(1, 90, |_, _| None))
        .collect();
    assert_eq!(ended, [30, 30, 30]);
}

proptest! {
    /// Against a map, with a hash so bad that buckets overflow into each other.
    #[test]
    fn a_table_is_a_map(steps in proptest::collection::vec((0..3_u8, 0..40_u32, any::<bool>()), 1..300)) {
        let table = FlowTable::with_hasher(64, Hasher::seeded([1; 4])).unwrap();
        let mut handle = FlowHandle::new(Arc::new(table), 0, 1).unwrap();
        let mut map = HashMap::new();
        for (step, n, v6) in steps {
            let tuple = if v6 { tuple6(n) } else { tuple(n) };
            match step {
                0 => match insert(&mut handle, &tuple, n.into()) {
                    Ok(flow) => prop_assert!(map.insert((v6, n), flow).is_none()),
                    Err(FlowError::Taken(flow)) => prop_assert_eq!(map.get(&(v6, n)), Some(&flow)),
                    // Sixteen slots can be full of others; nothing else is allowed.
                    Err(error) => prop_assert_eq!(error, FlowError::Full),
                },
                1 => if let Some(flow) = map.remove(&(v6, n)) {
                    handle.remove(flow);
                    handle.quiesce();
                },
                _ => {}
            }
            prop_assert_eq!(find(&handle, &tuple), map.get(&(v6, n)).copied());
            prop_assert_eq!(find(&handle, &tuple.reverse()), map.get(&(v6, n)).map(|flow| flow.other()));
            prop_assert_eq!(handle.table().len() as usize, map.len());
            prop_assert_eq!(handle.table().iter().count(), map.len());
        }
    }
}

/// Workers insert and remove the same few tuples at once. A tuple is never in the table twice, and what a worker finds
/// has that tuple and the value that was stored with it until the worker's next quiescent point.
#[test]
fn several_workers_at_once() {
    const WORKERS: usize = 4;
    let table = Arc::new(FlowTable::new(256).unwrap());
    let stop = AtomicBool::new(false);
    let (inserted, removed) = (AtomicU64::new(0), AtomicU64::new(0));
    // Who may take a connection out: who put this flag down.
    let mine: Vec<_> = (0..48).map(|_| AtomicBool::new(false)).collect();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let mut handle = FlowHandle::new(table.clone(), worker, WORKERS).unwrap();
            let (stop, inserted, removed, mine) = (&stop, &inserted, &removed, &mine);
            scope.spawn(move || {
                let mut random = 0x1234_5678_u64 + worker as u64;
                while !stop.load(Ordering::Relaxed) {
                    for _ in 0..32 {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let n = (random >> 33) as u32 % 48;
                        let tuple = tuple(n);
                        let found = find(&handle, &tuple);
                        if let Some(flow) = found {
                            let half = handle.table().half(flow).unwrap();
                            assert_eq!((half.tuple(), half.word::<0>()), (tuple, n.into()));
                            if mine[n as usize].swap(false, Ordering::AcqRel) {
                                // The one that is public now: ours may have gone and come again since.
                                let flow = find(&handle, &tuple).unwrap();
                                handle.remove(flow);
                                removed.fetch_add(1, Ordering::Relaxed);
                            }
                        } else if insert(&mut handle, &tuple, n.into()).is_ok() {
                            inserted.fetch_add(1, Ordering::Relaxed);
                            assert!(
                                !mine[n as usize].swap(true, Ordering::AcqRel),
                                "{tuple:?} is there twice"
                            );
                        }
                    }
                    handle.quiesce();
                }
            });
        }
        std::thread::sleep(std::time::Duration::from_millis(400));
        stop.store(true, Ordering::Relaxed);
    });
    let (inserted, removed) = (inserted.into_inner(), removed.into_inner());
    assert!(removed > 100, "{removed}");
    assert_eq!(u64::from(table.len()), inserted - removed);
    assert_eq!(table.iter().count() as u64, inserted - removed);
}

#[test]
fn a_connection_takes_at_most_192_bytes() {
    // Index lines are a power of two: the most a connection is what is just above one.
    for capacity in [100_000, 98_305, 196_609, 1 << 20, 786_433, 1_000_000] {
        let table = FlowTable::new(capacity).unwrap();
        let each = table.bytes() as f64 / f64::from(table.capacity());
        assert!(
            (140.0..=192.0).contains(&each),
            "{each} bytes for each of {capacity}"
        );
    }
}
