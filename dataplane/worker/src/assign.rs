//! Which worker polls and fills which queue.

/// The queues of one port, by worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// Receive queues each worker polls.
    pub rx: Vec<Vec<u16>>,
    /// The send queue each worker has to itself; a worker without one hands its packets to `tx_owner`.
    pub tx: Vec<Option<u16>>,
    /// The worker whose send queue each worker uses: itself where it has one.
    pub tx_owner: Vec<usize>,
}

impl Assignment {
    /// Whether every worker has a receive and a send queue of its own.
    pub fn is_even(&self) -> bool {
        self.rx.iter().all(|queues| queues.len() == 1) && self.tx.iter().all(Option::is_some)
    }
}

/// Spreads `rx` receive and `tx` send queues of one port over `workers` workers. `first` is the worker that queue 0
/// goes to where there are fewer queues than workers, so that ports with one queue do not all end up with worker 0.
pub fn assign(workers: usize, rx: u16, tx: u16, first: usize) -> Assignment {
    let workers = workers.max(1);
    // A worker that polls some queue of the port should be the one that has a send queue, too.
    let shift = |queues: u16| if usize::from(queues) < workers { first } else { 0 };
    let mut assignment = Assignment {
        rx: vec![Vec::new(); workers],
        tx: vec![None; workers],
        tx_owner: vec![0; workers],
    };
    for queue in 0..rx {
        assignment.rx[(usize::from(queue) + shift(rx)) % workers].push(queue);
    }
    let owners: Vec<usize> = (0..tx)
        .take(workers)
        .map(|queue| (usize::from(queue) + shift(tx)) % workers)
        .collect();
    for (queue, &worker) in owners.iter().enumerate() {
        assignment.tx[worker] = Some(queue as u16);
    }
    for worker in 0..workers {
        assignment.tx_owner[worker] = match assignment.tx[worker] {
            Some(_) => worker,
            None => owners.get(worker % owners.len().max(1)).copied().unwrap_or(0),
        };
    }
    assignment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_queues_as_workers_are_one_each() {
        let assignment = assign(3, 3, 3, 2);
        assert_eq!(assignment.rx, [[0], [1], [2]]);
        assert_eq!(assignment.tx, [Some(0), Some(1), Some(2)]);
        assert_eq!(assignment.tx_owner, [0, 1, 2]);
        assert!(assignment.is_even());
    }

    #[test]
    fn one_queue_goes_to_one_worker_and_the_others_hand_over() {
        let assignment = assign(3, 1, 1, 4);
        assert_eq!(assignment.rx, [vec![], vec![0], vec![]]);
        assert_eq!(assignment.tx, [None, Some(0), None]);
        assert_eq!(assignment.tx_owner, [1, 1, 1]);
        assert!(!assignment.is_even());
    }

    #[test]
    fn no_queue_is_left_without_a_worker() {
        for workers in 1..6 {
            for rx in 1..9 {
                for tx in 1..9 {
                    let assignment = assign(workers, rx, tx, 3);
                    let mut polled: Vec<u16> = assignment.rx.concat();
                    polled.sort_unstable();
                    assert_eq!(polled, (0..rx).collect::<Vec<_>>());
                    for worker in 0..workers {
                        assert!(assignment.tx[assignment.tx_owner[worker]].is_some());
                    }
                }
            }
        }
    }
}
