"""keras_layers"""
