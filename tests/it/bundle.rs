//! Bundles through the registry, by our client and by others'.
