"""Wake words on small devices: the application of the paper (arXiv 2207.06920), from audio to a packed model.

    python -m subbyte.keyword_spotting demo

    features      20 log mel energies, 27 frames: 540 inputs, in numpy and in TensorFlow
    alignment     where in a recording the keyword is
    data          recordings in a folder, with splits by speaker; their cache
    synthesize    speech by espeak-ng where there are no recordings
    augment       training windows: shift, tempo, vocal tract, gain, noise
    models        M0 to M6
    train         two stages, one recipe
    metrics       keyword accuracy, misses, false alarms and discoveries, at one threshold and at many
    intervals     bootstrap intervals over speakers
    evaluate      Keras and TFLite models on a split
    detector      keywords in audio as it comes
    streams       continuous audio with keywords at known times, and what a detector does on it
    listen        a detector on a recording or a microphone
    report        a page that compares models, with plots of `plots`
    demo          all of it, float against 4 bits

Importing any of these imports no TensorFlow; the functions that need it do.
"""
