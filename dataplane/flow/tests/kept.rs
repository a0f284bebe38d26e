//! Connections outlive a process that is killed at any time; what is not theirs, or not whole, does not.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use octoplane_flow::{Directory, FlowHandle, FlowTable, Kept, Purpose, Resumed, Tuple, Unusable};
use segment::SegmentError;

const CAPACITY: u32 = 10_000;
const THREADS: usize = 4;

fn place() -> tempfile::TempDir {
    let shm = Path::new("/dev/shm");
    if shm.is_dir() {
        tempfile::tempdir_in(shm).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn purpose() -> Purpose {
    Purpose {
        meaning: 3,
        boot: 0x1234_5678_9abc_def0_1122_3344_5566_7788,
        capacities: vec![500, CAPACITY],
    }
}

/// Takes a directory that is free, but for a child of another test that has not got rid of our files yet.
fn take(path: &Path) -> Directory {
    for _ in 0..1000 {
        match Directory::take(path) {
            Err(SegmentError::InUse(_)) => std::thread::sleep(Duration::from_millis(5)),
            taken => return taken.unwrap(),
        }
    }
    panic!("somebody has {}", path.display());
}

fn open(path: &Path, purpose: &Purpose) -> (Kept, Option<Unusable>) {
    Kept::open(take(path), purpose).unwrap()
}

/// Connection number `n`, of either family, translated or not, and what the engine is to keep of it.
fn connection(n: u32) -> ([Tuple; 2], [[u64; 3]; 2]) {
    let there = match n % 2 {
        0 => Tuple::v4(0x0a00_0000 + n, 0x0a63_0001, n as u16, 80, 6, 0),
        _ => Tuple::v6([0xfd00 << 48, n.into()], [0xfd00 << 48, 1 << 40], 1024, 80, 17, 0),
    };
    let back = match n % 3 {
        0 => Tuple::new(there.dst(), there.src(), 8080, there.sport(), there.protocol(), 0),
        _ => there.reverse(),
    };
    let word = u64::from(n);
    ([there, back], [[word, !word, 1], [word, !word, 2]])
}

fn insert(handle: &mut FlowHandle, n: u32) -> bool {
    let ([there, back], payloads) = connection(n);
    handle.insert([&there, &back], payloads, 1000 + n).is_ok()
}

/// The numbers of the connections of a table; each has to be as it was made.
fn numbers(table: &FlowTable) -> Vec<u32> {
    let mut numbers: Vec<u32> = table
        .iter()
        .map(|flow| {
            let (there, back) = (table.half(flow).unwrap(), table.half(flow.other()).unwrap());
            let n = there.word::<0>() as u32;
            let ([forward, reply], payloads) = connection(n);
            assert_eq!((there.tuple(), back.tuple()), (forward, reply));
            for (half, payload) in [(there, payloads[0]), (back, payloads[1])] {
                assert_eq!([half.word::<0>(), half.word::<1>(), half.word::<2>()], payload);
            }
            for (tuple, direction) in [(forward, flow), (reply, flow.other())] {
                assert_eq!(table.find(table.hash(&tuple), &tuple), Some(direction));
            }
            n
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers.len() as u32, table.len());
    numbers
}

/// Another process: makes connections in the way that `SEGMENT_TEST` says, and does not end by itself.
#[test]
fn child() {
    let (Ok(path), Ok(how)) = (std::env::var("KEPT_PATH"), std::env::var("KEPT_HOW")) else {
        return;
    };
    let (kept, _) = open(Path::new(&path), &purpose());
    kept.beat(5_000_000_000, 100_000_000_000);
    let (table, _) = kept.table(1, |_, _| true).unwrap();
    let table = Arc::new(table);
    if how == "some" {
        let mut handle = FlowHandle::new(table, 0, 1).unwrap();
        assert!((0..300).all(|n| insert(&mut handle, n)));
        let ([gone, _], _) = connection(7);
        let flow = handle.table().find(handle.table().hash(&gone), &gone).unwrap();
        assert!(handle.remove(flow));
        std::process::abort();
    }
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let mut handle = FlowHandle::new(Arc::clone(&table), number, THREADS).unwrap();
            // All of them make and end the same connections.
            std::thread::spawn(move || {
                let mut n = 12_345 + number as u32;
                loop {
                    n = n.wrapping_mul(1_103_515_245).wrapping_add(12345);
                    let which = (n >> 8) % 3000;
                    if !insert(&mut handle, which) {
                        let ([there, _], _) = connection(which);
                        let table = handle.table();
                        if let Some(flow) = table.find(table.hash(&there), &there) {
                            handle.remove(flow);
                        }
                    }
                    handle.quiesce();
                    handle.sweep(1, 4, |_, _| None);
                }
            })
        })
        .collect();
    println!("under way");
    for thread in threads {
        let _ = thread.join();
    }
}

fn spawn(path: &Path, how: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture"])
        .env("KEPT_PATH", path)
        .env("KEPT_HOW", how)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A directory in which a killed process left connections 0 to 299 but 7.
fn left() -> tempfile::TempDir {
    let place = place();
    let mut child = spawn(place.path(), "some");
    assert!(!child.wait().unwrap().success());
    place
}

#[test]
fn connections_are_there_again() {
    let place = left();
    let (kept, unusable) = open(place.path(), &purpose());
    assert_eq!(unusable, None);
    let mut asked = 0;
    let (table, resumed) = kept
        .table(1, |there, back| {
            asked += 1;
            there.word::<2>() == 1 && back.word::<2>() == 2
        })
        .unwrap();
    let expected = Resumed {
        connections: 299,
        dropped: 0,
    };
    assert_eq!((resumed, asked), (expected, 299));
    let all: Vec<u32> = (0..300).filter(|n| *n != 7).collect();
    assert_eq!(numbers(&table), all);
    // The other table has none.
    let (other, resumed) = kept.table(0, |_, _| true).unwrap();
    assert_eq!((other.len(), resumed), (0, Resumed::default()));
    assert!(kept.table(2, |_, _| true).is_err());
    // They are as others are: taken, ended when their time comes, and there is room for as many as before.
    let mut handle = FlowHandle::new(Arc::new(table), 0, 1).unwrap();
    assert!(!insert(&mut handle, 8) && insert(&mut handle, 7));
    assert_eq!(handle.sweep(1009, CAPACITY as usize, |_, _| None), 10);
    assert_eq!(handle.table().len(), 290);
    handle.quiesce();
    let made = (1000..).take_while(|n| insert(&mut handle, *n)).count();
    assert_eq!(made as u32, CAPACITY - 290);
}

#[test]
fn the_clock_goes_on() {
    let place = place();
    let (kept, _) = open(place.path(), &purpose());
    assert_eq!(kept.engine_clock(77), 0);
    drop(kept);
    let place = left();
    let (kept, _) = open(place.path(), &purpose());
    // Two seconds and a half after the last beat.
    assert_eq!(kept.engine_clock(102_500_000_000), 7_500_000_000);
    // A clock that went back is no reason to go back.
    assert_eq!(kept.engine_clock(99_000_000_000), 5_000_000_000);
}

#[test]
fn the_engine_says_what_it_wants() {
    let place = left();
    let (kept, _) = open(place.path(), &purpose());
    let (table, resumed) = kept
        .table(1, |there, back| {
            back.set_word::<0>(there.word::<0>());
            there.word::<0>() % 2 == 0
        })
        .unwrap();
    assert_eq!((resumed.connections, resumed.dropped), (150, 149));
    assert!(numbers(&table).iter().all(|n| n % 2 == 0));
    drop((table, kept));
    // What it did not want is gone for good.
    let (kept, _) = open(place.path(), &purpose());
    let (_, resumed) = kept.table(1, |_, _| true).unwrap();
    assert_eq!((resumed.connections, resumed.dropped), (150, 0));
}

#[test]
fn other_purposes_are_refused_and_begin_anew() {
    type Change = fn(&mut Purpose);
    type IsExpected = fn(&Unusable) -> bool;
    let cases: [(Change, IsExpected); 4] = [
        (
            |it| it.meaning = 4,
            |why| {
                matches!(
                    why,
                    Unusable::Version {
                        found: (_, 3),
                        expected: (_, 4)
                    }
                )
            },
        ),
        (|it| it.boot += 1, |why| *why == Unusable::Boot),
        (|it| it.capacities[1] += 1, |why| *why == Unusable::Sizes),
        (|it| it.capacities.push(64), |why| *why == Unusable::Sizes),
    ];
    for (change, is_expected) in cases {
        let place = left();
        let mut other = purpose();
        change(&mut other);
        let (kept, unusable) = open(place.path(), &other);
        assert!(is_expected(&unusable.unwrap()), "{unusable:?}");
        let (table, resumed) = kept.table(1, |_, _| true).unwrap();
        assert_eq!((table.len(), resumed), (0, Resumed::default()));
        drop((kept, table));
        assert_eq!(open(place.path(), &other).1, None, "from now on it is that");
    }
}

#[test]
fn a_damaged_header_is_refused() {
    // All words that are summed up, and the sum.
    for at in 0..25 {
        let place = left();
        let directory = take(place.path());
        let word = &directory.open("connections").unwrap().words()[at];
        word.fetch_xor(1 << (at % 64), std::sync::atomic::Ordering::SeqCst);
        let (kept, unusable) = Kept::open(directory, &purpose()).unwrap();
        assert_eq!(unusable, Some(Unusable::Damaged), "word {at}");
        assert_eq!(kept.table(1, |_, _| true).unwrap().1, Resumed::default());
    }
    for length in [0, 8, 200, 4096, 100_000] {
        let place = left();
        let path = place.path().join("connections");
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(length).unwrap();
        let (kept, unusable) = open(place.path(), &purpose());
        let expected = (length > 0).then_some(Unusable::Damaged);
        assert_eq!(unusable, expected, "{length} bytes");
        assert_eq!(kept.table(1, |_, _| true).unwrap().1, Resumed::default());
    }
}

#[test]
fn a_damaged_record_is_dropped_and_the_others_stay() {
    let words = 64 + 500 * 16 + 504;
    for (at, bit) in (0..16).flat_map(|at| [0, 17, 40, 63].map(|bit| (at, bit))) {
        let place = left();
        let directory = take(place.path());
        // Connection 1 is of IPv6, so that all its words mean something.
        let word = &directory.open("connections").unwrap().words()[words + 16 + at];
        word.fetch_xor(1 << bit, std::sync::atomic::Ordering::SeqCst);
        let (kept, _) = Kept::open(directory, &purpose()).unwrap();
        let (_, resumed) = kept.table(1, |_, _| true).unwrap();
        // Words 5 to 7 of each direction are the engine's.
        let dropped = u32::from(at % 8 < 5);
        assert_eq!(
            (resumed.connections, resumed.dropped),
            (299 - dropped, dropped),
            "word {at}, bit {bit}"
        );
    }
}

#[test]
fn two_of_the_same_are_one() {
    let place = left();
    let directory = take(place.path());
    let words = directory.open("connections").unwrap().words();
    let records = 64 + 500 * 16 + 504;
    let looks = records + CAPACITY as usize * 16;
    let copy = |from: usize, to: usize| {
        use std::sync::atomic::Ordering::SeqCst;
        words[to].store(words[from].load(SeqCst), SeqCst);
    };
    (0..16).for_each(|at| copy(records + at, records + 5000 * 16 + at));
    copy(looks, looks + 5000);
    let (kept, _) = Kept::open(directory, &purpose()).unwrap();
    let (table, resumed) = kept.table(1, |_, _| true).unwrap();
    assert_eq!((resumed.connections, resumed.dropped), (299, 1));
    numbers(&table);
}

#[test]
fn killed_at_any_time() {
    let place = place();
    let mut total = 0;
    for round in 0..60 {
        let mut child = spawn(place.path(), "busy");
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("under way") {
            line.clear();
            assert!(std::io::BufRead::read_line(&mut out, &mut line).unwrap() > 0);
        }
        std::thread::sleep(Duration::from_micros(500 + 331 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let (kept, unusable) = open(place.path(), &purpose());
        assert_eq!(unusable, None);
        let (table, resumed) = kept.table(1, |_, _| true).unwrap();
        // Nothing is half there: what a thread had in hand is whole, or not there.
        assert_eq!((resumed.dropped, resumed.connections), (0, table.len()));
        total += numbers(&table).len();
    }
    assert!(total > 1000, "{total}");
}

#[test]
fn one_process_at_a_time() {
    let place = place();
    let _kept = open(place.path(), &purpose());
    let second = Directory::take(place.path());
    assert!(matches!(second, Err(SegmentError::InUse(_))));
}

/// How long it takes to go on with very many connections; `--release --ignored --nocapture` prints it.
#[test]
#[ignore = "prints a figure"]
fn how_long_it_takes() {
    const MILLION: u32 = 1_000_000;
    for used in [100_000, MILLION] {
        let place = place();
        let purpose = Purpose {
            capacities: vec![MILLION],
            ..purpose()
        };
        let (kept, _) = open(place.path(), &purpose);
        let (table, _) = kept.table(0, |_, _| true).unwrap();
        let mut handle = FlowHandle::new(Arc::new(table), 0, 1).unwrap();
        assert!((0..used).all(|n| insert(&mut handle, n)));
        drop((handle, kept));
        let begin = on_cpu();
        let (kept, _) = open(place.path(), &purpose);
        let opened = on_cpu() - begin;
        let (_, resumed) = kept.table(0, |_, _| true).unwrap();
        assert_eq!(resumed.connections, used);
        println!(
            "{used} connections go on after {:?}, of which {opened:?} to map the memory",
            on_cpu() - begin
        );
    }
}

/// How long this thread has had a CPU: the machine may be busy with something else.
fn on_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
