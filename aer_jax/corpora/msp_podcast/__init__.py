"""MSP-Podcast as its owners ship it."""
