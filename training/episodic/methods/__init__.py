"""Methods of adapting, and of generalising without it, under one protocol (docs/adaptation.md)."""
