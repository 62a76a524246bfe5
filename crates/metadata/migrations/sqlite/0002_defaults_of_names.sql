-- Equal content is one image, whatever it is called, so resource defaults belong to names. Those of
-- an image itself are for who asks for it by its digest.

ALTER TABLE image_names ADD COLUMN default_vcpu INTEGER;
ALTER TABLE image_names ADD COLUMN default_memory_mib INTEGER;
UPDATE image_names SET
    default_vcpu       = (SELECT default_vcpu FROM images WHERE digest = image_names.image),
    default_memory_mib = (SELECT default_memory_mib FROM images WHERE digest = image_names.image);
