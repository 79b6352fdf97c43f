//! ejabberd as Debian ships it, configured like Rookery.
