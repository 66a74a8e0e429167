embedded() { :; }
