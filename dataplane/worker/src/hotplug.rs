//! Ports that come and go while the workers poll.
//!
//! A port that comes is brought up, given to the workers, and only then put into the tables: nothing can be sent to it
//! before. One that goes is taken out of the tables first; then the workers are asked, one step after the other, to let
//! go of what the old tables led to, to send what they handed to each other, and to give its queues back. Its device is
//! stopped and removed after that, and its number is free after that. No worker ever waits for any of it.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dpdk::hotplug::{self, DetachFailed, HotplugError};
use dpdk::{Eal, Port, PortError};
use octoplane_tables::ChangeError;
use octoplane_tables::model::{Change, MAX_PORTS, PortId};

use crate::bind::{BindFailed, BoundPort, Crew, PortPlan, bind, least_loaded, planned};
use crate::bringup::{BringupError, Dataplane};
use crate::command::Command;
use crate::handle::Handle;
use crate::ports::PortQueues;

/// How long a worker may take to answer. It does between two bursts: one that does not is stuck.
const ANSWER: Duration = Duration::from_secs(5);
/// How long to wait before another try where a worker takes no more commands.
const FULL: Duration = Duration::from_millis(1);

/// Why a port was not added or not removed.
#[derive(Debug, thiserror::Error)]
pub enum PortChangeError {
    /// The tables say no.
    #[error(transparent)]
    Refused(#[from] ChangeError),
    /// There is no such port.
    #[error("there is no port \"{0}\"")]
    NoSuchPort(String),
    /// A port has the device.
    #[error("device {device} is that of port {port} already")]
    DeviceInUse {
        /// The device.
        device: String,
        /// The port.
        port: String,
    },
    /// An earlier removal did not come to its end.
    #[error("port {0} is on its way out, but not gone: remove it again")]
    Leaving(String),
    /// DPDK does not take the device.
    #[error(transparent)]
    Attach(HotplugError),
    /// The device cannot be used as planned.
    #[error(transparent)]
    Setup(#[from] BringupError),
    /// A worker does not answer.
    #[error("worker {0} does not answer")]
    Worker(usize),
    /// The device does not go.
    #[error("port {port}: {error}")]
    Detach {
        /// The port.
        port: String,
        /// What DPDK said.
        error: HotplugError,
    },
    /// A port was not added, and its device stays behind.
    #[error("{error}; its device stays behind: {left}")]
    LeftBehind {
        /// Why it was not added.
        error: Box<Self>,
        /// Why the device stays.
        left: HotplugError,
    },
}

impl Dataplane {
    /// Adds a port with the device that `devargs` names, which DPDK must not have yet. What does not succeed leaves nothing
    /// behind. Takes as long as the device takes to come up. That it will be there after a restart is its caller's matter.
    ///
    /// # Errors
    /// [`PortChangeError`]
    pub fn add_port(&self, plan: &PortPlan, devargs: &str) -> Result<Arc<BoundPort>, PortChangeError> {
        let _one = self.one_at_a_time();
        let ports = self.bound();
        if let Some(leaving) = ports
            .iter()
            .find(|bound| bound.plan.name == plan.name && !bound.is_listed())
        {
            return Err(PortChangeError::Leaving(leaving.plan.name.clone()));
        }
        let free = (0..MAX_PORTS as PortId).find(|id| !ports.iter().any(|bound| bound.id == *id));
        // Without a free number the tables say how many there are.
        let id = free.unwrap_or(MAX_PORTS as PortId);
        // What can be refused without the device is refused before it is touched.
        self.store.ready()?;
        self.store
            .check(vec![Change::AddPort(planned(id, plan))])
            .map_err(|refused| refused.error)?;
        let crew = Crew {
            inboxes: &self.inboxes,
            first: least_loaded(self.workers.len(), &ports),
            pool: &self.pool,
        };
        let (bound, queues) = attach(&self.eal, id, plan, devargs, crew, &ports)?;
        let bound = Arc::new(bound);
        self.enter(Arc::clone(&bound));
        let listed = self.give(queues).and_then(|()| {
            self.store
                .learn(|_| vec![Change::AddPort(bound.model())])
                .map_err(|refused| refused.error.into())
        });
        match listed {
            Ok(_) => {
                bound.list(true);
                Ok(bound)
            }
            Err(error) => Err(self.withdraw(&bound, error)),
        }
    }

    /// Removes a port that the tables no longer need, and its device. `forget` is called twice while it goes, and has to
    /// return once nobody else knows the port's number from tables or news that were there before the call.
    ///
    /// A removal that fails half-way can be repeated. One that came to its end but is not saved says so.
    ///
    /// # Errors
    /// [`PortChangeError`]
    pub fn remove_port(&self, name: &str, forget: impl Fn()) -> Result<(), PortChangeError> {
        let _one = self.one_at_a_time();
        let bound = self
            .bound()
            .into_iter()
            .find(|bound| bound.plan.name == name)
            .ok_or_else(|| PortChangeError::NoSuchPort(name.to_owned()))?;
        if bound.is_listed() {
            self.store.ready()?;
            self.store
                .learn(|_| vec![Change::RemovePort { id: bound.id }])
                .map_err(|refused| refused.error)?;
            bound.list(false);
        }
        // Nobody asks a worker to send there any more, then no worker does, then none has it.
        forget();
        self.fence()?;
        drop(self.take_back(bound.id)?);
        // What the workers said of it has been heard now.
        forget();
        let device = bound.device().take();
        let result = device.map_or(Ok(()), hotplug::detach_port);
        let error = match result {
            Ok(()) => None,
            Err(DetachFailed { error, port }) => {
                let kept = port.is_some();
                *bound.device() = port.map(|device| *device);
                if kept {
                    return Err(detach(name, error));
                }
                // It is closed: the port is gone, if its device is not.
                Some(detach(name, error))
            }
        };
        self.leave(bound.id);
        error.map_or(Ok(()), Err)?;
        let revision = self.store.state().revision();
        self.store.kept(revision).map_err(Into::into)
    }

    fn one_at_a_time(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a port back that did not get into the tables.
    fn withdraw(&self, bound: &BoundPort, error: PortChangeError) -> PortChangeError {
        // A worker that does not give its queues back keeps the port; it stays entered, to be removed later.
        if self.take_back(bound.id).is_err() {
            return error;
        }
        let device = bound.device().take();
        self.leave(bound.id);
        match device {
            Some(device) => remove_device(device, error),
            None => error,
        }
    }

    /// Gives each worker its queues of a new port, and returns once all have them.
    fn give(&self, queues: Vec<PortQueues>) -> Result<(), PortChangeError> {
        let deadline = Instant::now() + ANSWER;
        for (worker, queues) in self.workers.iter().zip(queues) {
            command(worker, Command::Attach(queues), deadline)?;
        }
        self.fence()
    }

    /// Returns once no worker holds anything that tables before the call led to.
    fn fence(&self) -> Result<(), PortChangeError> {
        self.ask(Command::Fence).map(drop)
    }

    /// Takes the queues of a port from all workers.
    fn take_back(&self, port: PortId) -> Result<Vec<Option<PortQueues>>, PortChangeError> {
        self.ask(|back| Command::Detach { port, back })
    }

    /// Asks all workers, then waits for the answers.
    fn ask<T>(&self, make: impl Fn(Sender<T>) -> Command) -> Result<Vec<T>, PortChangeError> {
        let deadline = Instant::now() + ANSWER;
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (sender, receiver) = channel();
            command(worker, make(sender), deadline)?;
            answers.push((worker.number, receiver));
        }
        answers
            .into_iter()
            .map(|(number, answer)| {
                answer
                    .recv_timeout(deadline.saturating_duration_since(Instant::now()))
                    .map_err(|_| PortChangeError::Worker(number))
            })
            .collect()
    }
}

/// Makes the device that `devargs` names a port, which no worker has yet. What does not succeed leaves nothing behind.
pub(crate) fn attach(
    eal: &Eal,
    id: PortId,
    plan: &PortPlan,
    devargs: &str,
    crew: Crew<'_>,
    others: &[Arc<BoundPort>],
) -> Result<(BoundPort, Vec<PortQueues>), PortChangeError> {
    if let Some(other) = others.iter().find(|bound| bound.plan.device == plan.device) {
        return Err(PortChangeError::DeviceInUse {
            device: plan.device.clone(),
            port: other.plan.name.clone(),
        });
    }
    let found = hotplug::attach(eal, devargs).map_err(PortChangeError::Attach)?;
    let device = match Port::open(eal, found) {
        Ok(device) => device,
        Err(error) => {
            let error = setup(plan, error);
            return Err(match hotplug::detach(eal, found) {
                Ok(()) => error,
                Err(left) => left_behind(error, left),
            });
        }
    };
    bind(id, plan, device, crew).map_err(|failed| {
        let BindFailed { device, error } = *failed;
        remove_device(device, error.into())
    })
}

/// Leaves a command with a worker, when there is room for it.
fn command(worker: &Handle, mut command: Command, deadline: Instant) -> Result<(), PortChangeError> {
    while let Err(refused) = worker.command(command) {
        if Instant::now() >= deadline {
            return Err(PortChangeError::Worker(worker.number));
        }
        command = refused;
        thread::sleep(FULL);
    }
    Ok(())
}

fn setup(plan: &PortPlan, error: PortError) -> PortChangeError {
    PortChangeError::Setup(BringupError::Port {
        port: plan.name.clone(),
        error,
    })
}

/// Removes the device of a port that could not be added because of `error`.
fn remove_device(device: Port, error: PortChangeError) -> PortChangeError {
    match hotplug::detach_port(device) {
        Ok(()) => error,
        Err(failed) => left_behind(error, failed.error),
    }
}

fn detach(port: &str, error: HotplugError) -> PortChangeError {
    PortChangeError::Detach {
        port: port.to_owned(),
        error,
    }
}

fn left_behind(error: PortChangeError, left: HotplugError) -> PortChangeError {
    PortChangeError::LeftBehind {
        error: Box::new(error),
        left,
    }
}
