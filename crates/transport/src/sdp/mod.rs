//! Sessions for the control plane: offer and answer. Under construction.
