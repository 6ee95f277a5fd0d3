"""What helps with files and folders of several kinds."""

ELSEWHERE = "download the model as GGUF, safetensors or ONNX: ternrun pull OWNER/NAME"
TORCH = (
    "pickles can run code when they are opened, so ternrun opens none: save the model as safetensors (transformers' "
    "save_pretrained), or convert its folder with llama.cpp's convert_hf_to_gguf.py"
)
ADAPTER = (
    "ternrun applies none: merge it into its base model (peft's merge_and_unload, or llama.cpp's llama-export-lora), "
    "and name the merged model"
)
IMATRIX = (
    "is an importance matrix (imatrix), which llama.cpp's llama-quantize uses when it makes a model; name the model "
    "itself"
)
