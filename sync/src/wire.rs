//! The thread that waits for answers of object stores, so that whoever asks can be told to stop.

use std::future::Future;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use tideline_journal::disk::fork_generation;
use tideline_journal::{Code, Error, Result};
use tokio::runtime::{Builder, Runtime};

/// How often it is asked whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A thread that talks to object stores. It is no thread of a host: that may be a runtime's own, which must not wait for
/// another.
pub(crate) struct Wire {
    runtime: Option<Runtime>,
    born: u64,
}

impl Wire {
    /// Begins it.
    ///
    /// # Errors
    /// `Io` without the means.
    pub fn new() -> Result<Arc<Wire>> {
        let built = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tideline-remote")
            .on_thread_start(tideline_journal::block_signals)
            .enable_all()
            .build();
        let runtime = built.map_err(|e| {
            Error::new(Code::Io, format!("no thread for requests: {e}; look at the system's limits"))
        })?;
        Ok(Arc::new(Wire { runtime: Some(runtime), born: fork_generation() }))
    }

    /// Whether it is this process's own. A child of `fork` has no such thread.
    pub fn is_alive(&self) -> bool {
        self.born == fork_generation()
    }

    /// What `work` comes to; `None` if `stop` said so before. It is given up then, wherever it was.
    pub fn wait<T: Send + 'static>(
        &self,
        stop: &dyn Fn() -> bool,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let runtime = self.runtime.as_ref().filter(|_| self.is_alive())?;
        let (sender, receiver) = mpsc::sync_channel(1);
        let task = runtime.spawn(async move {
            // Nobody may be listening any more.
            drop(sender.send(work.await));
        });
        loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(done) => return Some(done),
                Err(RecvTimeoutError::Timeout) if !stop() => {}
                // Disconnected: it panicked.
                Err(_) => {
                    task.abort();
                    return None;
                }
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.is_alive() {
            runtime.shutdown_background();
        } else {
            // Its locks may be held for ever, by threads that the child hasn't got.
            std::mem::forget(runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_to_stop_stops() {
        let wire = Wire::new().unwrap();
        assert_eq!(wire.wait(&|| false, async { 7 }), Some(7));
        assert_eq!(wire.wait(&|| true, std::future::pending::<u8>()), None);
    }

    #[test]
    fn it_waits_in_a_thread_of_a_runtime_as_well() {
        let host = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let task = host.spawn(async {
            let wire = Wire::new().unwrap();
            wire.wait(&|| false, async { 7 })
        });
        assert_eq!(host.block_on(task).unwrap(), Some(7));
    }

    #[test]
    fn work_that_panics_is_none() {
        let wire = Wire::new().unwrap();
        assert_eq!(wire.wait(&|| false, async { assert_eq!(1, 2) }), None);
        assert_eq!(wire.wait(&|| false, async { 7 }), Some(7));
    }
}
