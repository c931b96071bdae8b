//! The end of a store: the dataset is given back as the administrator made it.

use std::sync::Arc;

use crate::chores;
use crate::error::{Doing, Result};
use crate::names::{ROLE, STORE};
use crate::store::Inner;
use crate::zfs::Refusal;

impl Inner {
    /// Takes away the datasets that hold the others, and the mark that says whose the dataset is. Nothing is destroyed with what is
    /// in it: where layers, root filesystems or foreign datasets are left, this fails and can be repeated.
    pub(crate) async fn dismantle(self: Arc<Self>) -> Result<()> {
        chores::round(&self).await;
        let fs = self.places.fs.clone();
        self.blocking(move |with| with.kernel.unmount(&fs).doing("unmounting", &fs))
            .await?;
        let names = &self.names;
        for name in [
            names.fs(),
            names.containers(),
            names.images(),
            names.deleted(),
        ] {
            match self.zfs.destroy(&name).await {
                Err(e) if e.is(Refusal::NotFound) => {}
                done => done.doing_to("destroying", &name)?,
            }
        }
        for property in [STORE, ROLE] {
            (self.zfs.inherit(names.root(), property).await)
                .doing_to("setting the properties of", names.root())?;
        }
        Ok(())
    }
}
