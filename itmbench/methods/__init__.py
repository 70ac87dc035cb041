"""One folder a method, each a LightningModule."""
