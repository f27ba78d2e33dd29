"""What people wear. The words, one meaning each:

- a *piece* (`makehuman`) is a garment, a pair of shoes, a hat or a head of hair as MakeHuman's files have it;
- an *item* (`stock`) is a piece fitted to the open body through the *scaffold*, so that it follows shape and pose; the
  *stock* is all items there are;
- the *wardrobe* (`outfit`) is that part of the stock that one split may use;
- *worn* (`outfit`) is an item as one person has it on: its colours, its lengths, how far it stands off;
- a *painted* garment (`paint_kernels`) has no mesh: it is a row of numbers, drawn on the skin;
- an *outfit* (`looks`) is all that one person wears, worn and painted, with skin, hair and beard;
- to *dress* (`drape`) is to put an outfit on a posed body: one mesh of skin and clothes comes out.
"""
