"""tsdf-ray: which photo protection still works after the deepfake attacker has adapted, and how sure are we?"""
