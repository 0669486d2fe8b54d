//! How much history stays readable.

use crate::control::Lock;
use crate::error::Result;
use crate::format::Retention;
use crate::store::Store;

impl Store {
    /// What is in force.
    ///
    /// # Errors
    /// `Io`, `Damaged`.
    pub fn retention(&self) -> Result<Retention> {
        Ok(self.read_superblock()?.retention)
    }

    /// Sets it, durably; what it no longer asks for goes as commits and closes come by.
    ///
    /// # Errors
    /// `Io`, `Busy`.
    pub fn set_retention(&self, retention: Retention) -> Result<()> {
        {
            let _guard = self.lock_superblock()?;
            let mut block = self.read_superblock()?;
            block.retention = retention;
            self.write_superblock(&mut block)?;
        }
        self.rolled.store(true, std::sync::atomic::Ordering::Relaxed);
        let running = self.fold.lock();
        if running.is_none() && self.control.file().try_lock(Lock::Fold)? {
            let trimmed = self.trim();
            self.control.file().unlock(Lock::Fold);
            trimmed?;
        }
        Ok(())
    }
}
