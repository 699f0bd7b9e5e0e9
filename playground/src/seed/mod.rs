//! What a Gardener seed and its shoots would do beside Rootstock.
