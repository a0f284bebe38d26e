//! Sequence numbers and replay windows under many threads: every interleaving a model checker (shuttle) comes to of small

//! cases, and real threads on large ones.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use octoplane_esp::atomic::Word;
use octoplane_esp::replay::{Replay, ReplayWindow};
use octoplane_esp::sequence::SequenceCounter;

/// The model checker's word: every operation is a point at which it may switch threads.
struct Checked(shuttle::sync::atomic::AtomicU64);

impl Word for Checked {
    fn new(value: u64) -> Self {
        Self(shuttle::sync::atomic::AtomicU64::new(value))
    }

    fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        self.0
            .compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_max(&self, value: u64) -> u64 {
        self.0.fetch_max(value, Ordering::SeqCst)
    }
}

/// A word whose compare-and-exchange is not one step: what the checker has to find fault with.
struct Torn(shuttle::sync::atomic::AtomicU64);

impl Word for Torn {
    fn new(value: u64) -> Self {
        Self(shuttle::sync::atomic::AtomicU64::new(value))
    }

    fn load(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn compare_exchange(&self, current: u64, new: u64) -> Result<u64, u64> {
        let now = self.load();
        if now != current {
            return Err(now);
        }
        self.0.store(new, Ordering::SeqCst);
        Ok(now)
    }

    fn fetch_max(&self, value: u64) -> u64 {
        self.0.fetch_max(value, Ordering::SeqCst)
    }
}

/// Has two or three model-checked threads accept these numbers at once; returns what was accepted by all together.
fn race(
    size: u32,
    before: &'static [u64],
    threads: &'static [&'static [u64]],
) -> Vec<(u64, Result<(), Replay>)> {
    race_on::<Checked>(size, before, threads)
}

fn race_on<W: Word + 'static>(
    size: u32,
    before: &'static [u64],
    threads: &'static [&'static [u64]],
) -> Vec<(u64, Result<(), Replay>)> {
    let window: Arc<ReplayWindow<W>> = Arc::new(ReplayWindow::new(size, 0));
    for sequence in before {
        window.accept(*sequence).unwrap();
    }
    let handles: Vec<_> = threads
        .iter()
        .map(|numbers| {
            let window = Arc::clone(&window);
            shuttle::thread::spawn(move || {
                let mut verdicts = vec![Ok(()); numbers.len()];
                window.accept_all(numbers, &mut verdicts);
                numbers.iter().copied().zip(verdicts).collect::<Vec<_>>()
            })
        })
        .collect();
    let results: Vec<_> = handles
        .into_iter()
        .flat_map(|handle| handle.join().unwrap())
        .collect();
    let top = threads.iter().flat_map(|t| t.iter()).chain(before).max().unwrap();
    assert_eq!(window.top(), *top, "the highest number");
    results
}

fn accepted(results: &[(u64, Result<(), Replay>)], sequence: u64) -> usize {
    results
        .iter()
        .filter(|(number, verdict)| *number == sequence && verdict.is_ok())
        .count()
}

#[test]
#[should_panic(expected = "accepted twice")]
fn the_checker_finds_a_window_that_is_not_exact() {
    shuttle::check_dfs(
        || {
            let results = race_on::<Torn>(64, &[], &[&[1], &[1]]);
            assert!(accepted(&results, 1) < 2, "accepted twice");
        },
        None,
    );
}

#[test]
fn copies_of_a_packet_are_accepted_once() {
    shuttle::check_dfs(
        || {
            let results = race(64, &[], &[&[1, 2], &[2, 1]]);
            assert_eq!(accepted(&results, 1), 1);
            assert_eq!(accepted(&results, 2), 1);
        },
        None,
    );
}

#[test]
fn three_workers_and_one_packet() {
    shuttle::check_random(
        || {
            let results = race(64, &[5], &[&[6], &[6], &[6, 5]]);
            assert_eq!(accepted(&results, 6), 1);
            assert_eq!(accepted(&results, 5), 0);
        },
        10_000,
    );
}

#[test]
fn what_is_in_the_window_is_accepted_while_another_moves_it() {
    // Window 64 at 100, so 37 and above are in it; another worker moves it to 116, where 53 and above are.
    shuttle::check_dfs(
        || {
            let results = race(64, &[100], &[&[116], &[53, 60, 101]]);
            for sequence in [116, 53, 60, 101] {
                assert_eq!(accepted(&results, sequence), 1, "{sequence}");
            }
        },
        None,
    );
}

#[test]
fn a_packet_is_not_accepted_again_after_its_word_was_taken_over() {
    // A window of 16 has two words, for blocks of 16. 40 takes over the word of 5.
    shuttle::check_random(
        || {
            let results = race(16, &[5], &[&[40], &[5], &[37, 5]]);
            assert_eq!(accepted(&results, 5), 0);
            assert_eq!(accepted(&results, 40), 1);
            assert_eq!(accepted(&results, 37), 1);
        },
        10_000,
    );
}

#[test]
fn two_takeovers_of_one_word() {
    // 33 and 65 share a word. Whoever is first, 65 is accepted once; 33 once or not at all, by then being too old.
    shuttle::check_random(
        || {
            let results = race(16, &[3], &[&[33, 65], &[65, 33], &[34, 33]]);
            assert_eq!(accepted(&results, 65), 1);
            assert!(accepted(&results, 33) <= 1);
            for (sequence, verdict) in results {
                // Refused as too old is only what a window ending at 65 does not hold.
                assert!(verdict != Err(Replay::TooOld) || sequence <= 65 - 16);
            }
        },
        10_000,
    );
}

#[test]
fn numbers_are_given_once_and_not_beyond_the_reservation() {
    shuttle::check_dfs(
        || {
            let counter: Arc<SequenceCounter<Checked>> = Arc::new(SequenceCounter::new(1, true));
            counter.allow(4);
            let takers: Vec<_> = (0..2)
                .map(|_| {
                    let counter = Arc::clone(&counter);
                    shuttle::thread::spawn(move || counter.take(2))
                })
                .collect();
            counter.allow(5);
            let mut given: Vec<u64> = takers.into_iter().flat_map(|t| t.join().unwrap()).collect();
            given.sort_unstable();
            let count = given.len() as u64;
            assert_eq!(given, (1..=count).collect::<Vec<_>>());
            assert!(count == 3 || count == 4);
        },
        None,
    );
}

/// Real threads: 4 workers share a window, packets are copied and reordered across them. Every number within the window
/// is accepted exactly once.
#[test]
fn stress_reordered_and_copied_packets_across_workers() {
    const WORKERS: u64 = 4;
    const PACKETS: u64 = 400_000;
    const BURST: u64 = 32;
    let window: ReplayWindow = ReplayWindow::new(1024, 0);
    // How far each worker is: none runs ahead of the slowest by more than fits into the window with the reordering.
    let progress: Vec<AtomicU64> = (0..WORKERS).map(|_| AtomicU64::new(0)).collect();
    let accepted: Vec<AtomicU64> = (0..=PACKETS).map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (window, progress, accepted) = (&window, &progress, &accepted);
            scope.spawn(move || {
                let mut verdicts = [Ok(()); BURST as usize];
                for burst in 0..PACKETS / BURST {
                    while progress.iter().any(|p| p.load(Ordering::Acquire) + 8 < burst) {
                        thread::yield_now();
                    }
                    // All workers get all packets, each in an order of its own.
                    let numbers: Vec<u64> = (0..BURST)
                        .map(|i| burst * BURST + 1 + (i * (2 * worker + 1) + worker) % BURST)
                        .collect();
                    window.accept_all(&numbers, &mut verdicts);
                    for (number, verdict) in numbers.iter().zip(verdicts) {
                        assert_ne!(verdict, Err(Replay::TooOld), "{number} with top {}", window.top());
                        accepted[*number as usize].fetch_add(u64::from(verdict.is_ok()), Ordering::Relaxed);
                    }
                    progress[worker as usize].store(burst + 1, Ordering::Release);
                }
            });
        }
    });
    for (number, count) in accepted.iter().enumerate().skip(1) {
        assert_eq!(count.load(Ordering::Relaxed), 1, "number {number}");
    }
}

/// Real threads without any pacing: nothing is accepted twice, whatever the window's position.
#[test]
fn stress_a_small_window_under_overload() {
    let window: ReplayWindow = ReplayWindow::new(32, 0);
    let accepted: Vec<Vec<u64>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..4)
            .map(|_| {
                let window = &window;
                scope.spawn(move || {
                    (1..300_000u64)
                        .filter(|number| window.accept(*number).is_ok())
                        .collect()
                })
            })
            .collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect()
    });
    let mut seen = HashSet::new();
    for number in accepted.into_iter().flatten() {
        assert!(seen.insert(number), "{number} was accepted twice");
    }
}

#[test]
fn stress_numbers_are_given_once() {
    let counter: SequenceCounter = SequenceCounter::new(1, true);
    let given: Vec<u64> = thread::scope(|scope| {
        let handles: Vec<_> = (1..=4u64)
            .map(|worker| {
                let counter = &counter;
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    while mine.len() < 100_000 {
                        counter.allow(counter.next() + 50);
                        mine.extend(counter.take(worker * 7));
                    }
                    mine
                })
            })
            .collect();
        handles
            .into_iter()
            .flat_map(|handle| handle.join().unwrap())
            .collect()
    });
    let distinct: HashSet<u64> = given.iter().copied().collect();
    assert_eq!(distinct.len(), given.len());
    assert_eq!(distinct.into_iter().max(), Some(given.len() as u64));
}
