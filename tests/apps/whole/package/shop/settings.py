EDITION = 0


class Production:
    EDITION_OF_SETTINGS = EDITION
