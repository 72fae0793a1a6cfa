"""What the maker of questions knows of English: word lists, no grammar."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


FUNCTION = _words(
    """
    a an the this that these those its his her their our my your it he she they we i you who which what when
    where why how and or but nor so yet if then than as at by for from in into of off on onto out over to under
    up with within without about above across after against along among around because before behind below
    between beyond during except near since through throughout toward towards until upon via while is are was
    were be been being am has have had having do does did can could will would shall should may might must not
    no also only both either neither each every all any some such more most other another many much few several
    there here however although though one two three first later often usually same own very well just even
    still now new
    """
)
"""Words that carry no content of their own: never asked for, the end of a content span."""
AUX = _words(
    """
    is was are were has had have can could will would may must should did does
    """
)
"""Verbs that a question puts in front."""
KINDS = _words(
    """
    university college school river lake sea party council army church museum company empire act war battle
    award prize island mountains valley street theatre festival league cup club society party kingdom province
    county city bridge castle airport railway station hospital institute corporation dynasty treaty
    """
)
"""Nouns that end a name and say what it is ("Jagiellonian University")."""
SYNONYMS: dict[str, str] = {
    pair.partition(":")[0]: pair.partition(":")[2]
    for pair in _words(
        """
    began:started large:big built:constructed founded:established created:made located:situated many:numerous
    called:named known:called largest:biggest used:utilized main:primary small:little become:be became:was
    important:significant include:contain includes:contains included:contained people:individuals
    often:frequently several:some died:passed first:earliest received:got said:stated wrote:authored won:gained
    moved:went usually:typically near:close country:nation released:issued led:headed help:aid shows:displays
    major:big various:different showed:displayed ended:finished part:portion area:region popular:famous
    produced:made considered:seen required:needed developed:made found:discovered city:town group:team
    killed:slain population:people entire:whole approximately:about describes:portrays described:portrayed
    similar:alike different:distinct ancient:old
    """
    )
}
"""Words that somebody who asks may use instead."""
