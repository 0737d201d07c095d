"""The Maximal Update Parametrization: roles of parameters, and what follows from them."""
