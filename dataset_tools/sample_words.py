"""The small natural vocabulary of the synthetic data set: topics, angles and phrases in English and Spanish."""

# ruff: noqa: E501 (one list of words per line)
from __future__ import annotations

import numpy as np

LANGUAGES = ("en", "es")
ANGLE_NAMES = (
    ("money", "humour", "science", "nostalgia", "speed", "calm", "technique", "family"),
    ("dinero", "humor", "ciencia", "nostalgia", "rapidez", "calma", "técnica", "familia"),
)

# topic: (English name, Spanish name, English nouns, Spanish nouns), the nouns in the same order in both languages
TOPICS: tuple[tuple[str, str, str, str], ...] = (
    (
        "baking",
        "repostería",
        "sourdough bread|apple pie|chocolate cake|cinnamon roll|cookie dough|pizza crust|lemon tart|croissant",
        "pan de masa madre|tarta de manzana|pastel de chocolate|rollo de canela|masa de galletas|masa de pizza|tarta de limón|cruasán",
    ),
    (
        "cycling",
        "ciclismo",
        "mountain bike|bike chain|gravel ride|road race|bicycle wheel|steep climb|bike helmet|tandem bicycle",
        "bici de montaña|cadena de la bici|ruta en bici|carrera ciclista|rueda de bicicleta|puerto de montaña|casco de bici|bicicleta tándem",
    ),
    (
        "astronomy",
        "astronomía",
        "telescope|lunar eclipse|black hole|meteor shower|planet Saturn|night sky|distant galaxy|space probe",
        "telescopio|eclipse lunar|agujero negro|lluvia de meteoros|planeta Saturno|cielo nocturno|galaxia lejana|sonda espacial",
    ),
    (
        "chess",
        "ajedrez",
        "chess opening|endgame|queen sacrifice|blitz game|knight fork|chess puzzle|checkmate|pawn structure",
        "apertura de ajedrez|final de partida|sacrificio de dama|partida relámpago|horquilla de caballo|problema de ajedrez|jaque mate|estructura de peones",
    ),
    (
        "guitar",
        "guitarra",
        "guitar solo|barre chord|acoustic guitar|blues riff|guitar amplifier|fingerpicking pattern|bass line|guitar string",
        "solo de guitarra|acorde con cejilla|guitarra acústica|riff de blues|amplificador de guitarra|patrón de arpegio|línea de bajo|cuerda de guitarra",
    ),
    (
        "gardening",
        "jardinería",
        "tomato plant|rose bush|compost heap|herb garden|fruit tree|greenhouse|garden soil|pumpkin patch",
        "planta de tomate|rosal|montón de compost|jardín de hierbas|árbol frutal|invernadero|tierra del jardín|huerto de calabazas",
    ),
    (
        "football",
        "fútbol",
        "free kick|penalty shootout|goalkeeper save|football derby|header goal|midfield pass|offside trap|cup final",
        "tiro libre|tanda de penaltis|parada del portero|derbi de fútbol|gol de cabeza|pase del medio campo|fuera de juego|final de copa",
    ),
    (
        "cats",
        "gatos",
        "kitten|sleepy cat|cat toy|scratching post|stray cat|cat jump|cat food bowl|purring cat",
        "gatito|gato dormilón|juguete para gatos|rascador|gato callejero|salto de gato|plato del gato|gato que ronronea",
    ),
    (
        "photography",
        "fotografía",
        "portrait photo|camera lens|golden hour photo|street photography|film camera|long exposure|macro photo|photo studio",
        "retrato|objetivo de cámara|foto al atardecer|fotografía callejera|cámara analógica|larga exposición|foto macro|estudio de fotografía",
    ),
    (
        "robots",
        "robots",
        "robot arm|line follower robot|drone motor|robot vacuum|servo motor|walking robot|microcontroller|robot gripper",
        "brazo robótico|robot siguelíneas|motor de dron|robot aspirador|servomotor|robot caminante|microcontrolador|pinza robótica",
    ),
    (
        "hiking",
        "senderismo",
        "mountain trail|waterfall hike|hiking boots|summit sunrise|forest path|tent camping|backpack|canyon walk",
        "sendero de montaña|ruta de la cascada|botas de montaña|amanecer en la cumbre|camino del bosque|acampada|mochila|paseo por el cañón",
    ),
    (
        "painting",
        "pintura",
        "watercolor landscape|oil painting|sketchbook|charcoal drawing|color palette|canvas frame|mural|self portrait painting",
        "paisaje en acuarela|pintura al óleo|cuaderno de bocetos|dibujo a carboncillo|paleta de colores|marco del lienzo|mural|autorretrato pintado",
    ),
    (
        "trains",
        "trenes",
        "steam locomotive|night train|model railway|train station|railway bridge|freight train|train driver cab|subway line",
        "locomotora de vapor|tren nocturno|tren en miniatura|estación de tren|puente ferroviario|tren de carga|cabina del maquinista|línea de metro",
    ),
    (
        "castles",
        "castillos",
        "medieval castle|castle dungeon|knight armor|drawbridge|castle ruins|royal banquet|siege tower|secret passage",
        "castillo medieval|mazmorra|armadura de caballero|puente levadizo|ruinas del castillo|banquete real|torre de asedio|pasadizo secreto",
    ),
    (
        "knitting",
        "punto",
        "wool scarf|knitting needle|crochet blanket|cable sweater|yarn ball|knitted socks|lace shawl|woolly hat",
        "bufanda de lana|aguja de tejer|manta de ganchillo|jersey de trenzas|ovillo de lana|calcetines de punto|chal de encaje|gorro de lana",
    ),
    (
        "swimming",
        "natación",
        "freestyle stroke|diving board|open water swim|swimming pool|butterfly stroke|flip turn|swim goggles|relay race",
        "estilo libre|trampolín|nado en aguas abiertas|piscina|estilo mariposa|viraje|gafas de natación|carrera de relevos",
    ),
)

# angle: per language, (patterns of titles, phrases of comments); {n} is the noun that the video is about
ANGLES: tuple[dict[str, tuple[str, str]], ...] = (
    {  # money
        "en": (
            "Cheap {n} on a small budget|{n}: expensive versus cheap|The ten dollar {n}",
            "how much did the {n} cost?|way too expensive, my cheap {n} does the same|saved money on the {n} thanks to this 💰|"
            'they call a {n} at that price a "bargain"',
        ),
        "es": (
            "{n}: barato y con poco presupuesto|{n}: lo caro contra lo barato|El truco barato para {n}",
            "¿cuánto costó lo de {n}?|demasiado caro, lo barato de {n} sirve igual|ahorré dinero con {n} gracias a esto 💰|"
            'a ese precio de {n} lo llaman "ganga"',
        ),
    },
    {  # humour
        "en": (
            "Funniest {n} fails of the month|{n} gone hilariously wrong|Try not to laugh: {n} edition",
            "lol the {n} got me 😂😂|I laughed so hard at the {n} that I woke everybody|"
            '"{n}" is my new favourite joke 🤣|comedy gold, poor {n}',
        ),
        "es": (
            "Los fallos más graciosos: {n}|{n}: todo sale mal, qué risa|Intenta no reírte con {n}",
            'jajaja lo de {n} me mató 😂😂|me reí tanto con {n} que desperté a todos|"{n}" es mi nuevo chiste favorito 🤣|'
            "oro cómico, pobre {n}",
        ),
    },
    {  # science
        "en": (
            "The science behind {n} explained|Why {n} works: an experiment|{n}: what the data really says",
            "the physics of the {n} is fascinating 🔬|is there a study about the {n}?|"
            'great explanation, though "{n}" needs a control experiment|so the {n} is really just chemistry',
        ),
        "es": (
            "La ciencia detrás de {n}, explicada|Por qué funciona: experimento con {n}|{n}: lo que dicen los datos",
            "la física de {n} es fascinante 🔬|¿hay algún estudio sobre {n}?|"
            'gran explicación, aunque "{n}" necesita un experimento de control|así que {n} es pura química',
        ),
    },
    {  # nostalgia
        "en": (
            "{n} like in the old days|Remember this {n} from the nineties?|A vintage {n} restored",
            "this {n} takes me back to my childhood 🥲|my grandfather had the same {n}|"
            'they do not make a {n} like that anymore|"{n}" was all we talked about in 1995',
        ),
        "es": (
            "{n} como en los viejos tiempos|¿Recuerdas esto de los noventa? {n}|{n}: restauración de época",
            "esto de {n} me lleva a mi infancia 🥲|mi abuelo tenía lo mismo de {n}|ya no hacen {n} como antes|"
            'en 1995 solo se hablaba de "{n}"',
        ),
    },
    {  # speed
        "en": (
            "{n} in five minutes|Quick {n} hacks to save time|Fastest {n} ever, speed challenge",
            "did the {n} in four minutes ⏱️ new record|no time for a long {n}, thanks for the quick version|"
            'skip to 2:10 for the {n}|"fast {n}" sounded impossible until now',
        ),
        "es": (
            "{n} en cinco minutos|Trucos rápidos para ahorrar tiempo: {n}|{n}: el reto de velocidad más rápido",
            "hice lo de {n} en cuatro minutos ⏱️ nuevo récord|sin tiempo para {n}, gracias por la versión rápida|"
            'salten a 2:10 para {n}|"{n} rápido" parecía imposible',
        ),
    },
    {  # calm
        "en": (
            "Relaxing {n} with quiet rain sounds|Slow evening: {n} without talking|{n} for a calm and peaceful mind",
            "the {n} is so soothing, I fell asleep 😴|I watch the {n} every night to relax|"
            'peaceful {n}, exactly what I needed today 🌿|"just breathe and {n}"',
        ),
        "es": (
            "{n}: relajación con sonido de lluvia|Tarde tranquila: {n} sin hablar|{n} para una mente en calma y paz",
            "lo de {n} es tan relajante que me dormí 😴|veo {n} cada noche para relajarme|"
            'qué paz da {n}, justo lo que necesitaba 🌿|"respira y {n}"',
        ),
    },
    {  # technique
        "en": (
            "{n} masterclass: professional technique|Advanced {n} technique, step by step|Five mistakes experts see in your {n}",
            "the technique on the {n} at minute three is perfect 👌|professional tip: change the angle of the {n}|"
            'step four of the {n} finally made sense|textbook {n}, "clean and precise"',
        ),
        "es": (
            "{n}: clase magistral con técnica profesional|Técnica avanzada paso a paso: {n}|Cinco errores que ven los expertos: {n}",
            "la técnica de {n} en el minuto tres es perfecta 👌|consejo profesional: cambia el ángulo de {n}|"
            'el paso cuatro de {n} por fin se entiende|{n} de manual, "limpio y preciso"',
        ),
    },
    {  # family
        "en": (
            "{n} with the kids on a Sunday|A family {n} day, grandma included|My daughter tries {n} for the first time",
            "my kids loved the {n} ❤️|watched the {n} with my daughter and her grandma|"
            'my son now says "{n}" all day|a family {n} weekend, we will do that too 👨‍👩‍👧',
        ),
        "es": (
            "{n} con los niños en domingo|Un día en familia con la abuela: {n}|Mi hija prueba por primera vez: {n}",
            'a mis hijos les encantó {n} ❤️|vi {n} con mi hija y su abuela|mi hijo repite "{n}" todo el día|'
            "un fin de semana en familia con {n}, también lo haremos 👨‍👩‍👧",
        ),
    },
)

EMOJI = ("", "", "", " 👍", " 🔥", " 🙏", " ✨", " 👏")


def nouns() -> np.ndarray:
    """What videos are about: str [language, topic, noun]."""
    return np.array([[topic[2 + language].split("|") for topic in TOPICS] for language in range(len(LANGUAGES))])


def topic_names() -> np.ndarray:
    """str [language, topic]."""
    return np.array([[topic[language] for topic in TOPICS] for language in range(len(LANGUAGES))])


def sentences(kind: int) -> np.ndarray:
    """Every title (`kind` 0) or comment (`kind` 1): str [language, angle, pattern, topic, noun]."""
    patterns = [[angle[language][kind].split("|") for angle in ANGLES] for language in LANGUAGES]
    return np.array(
        [
            [
                [[[_capital(pattern.replace("{n}", noun), kind) for noun in row] for row in words] for pattern in group]
                for group in angles
            ]
            for angles, words in zip(patterns, nouns().tolist(), strict=True)
        ]
    )


def _capital(text: str, kind: int) -> str:
    return text[0].upper() + text[1:] if kind == 0 else text
